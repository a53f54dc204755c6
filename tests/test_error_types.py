import inspect
import pickle

from elicitor.backends.http_client import RefusedError
from elicitor.errors import ElicitorError


def kinds(base):
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


def test_errors_reach_another_process_as_they_were():
    found = kinds(ElicitorError)
    assert {"RefusedError", "ResumeMismatchError"} <= {kind.__name__ for kind in found}
    for kind in found:
        more = {"status": 401} if "status" in inspect.signature(kind).parameters else {}
        error = kind("what was got", fix="what to do", **more)
        same = pickle.loads(pickle.dumps(error))
        assert (type(same), str(same), vars(same)) == (kind, str(error), vars(error))
    refused = pickle.loads(pickle.dumps(RefusedError("no key", fix="give one", status=401)))
    assert (str(refused), refused.fix, refused.status) == ("no key; give one", "give one", 401)
