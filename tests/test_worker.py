from elicitor.errors import BackendError, ConfigError, DataError
from elicitor.worker import Worker, own_code


def test_a_worker_with_another_elicitor_is_refused():
    worker = Worker()
    other = worker.load("fake", {}, own_code() + "x")
    assert isinstance(other, ConfigError)
    assert "install the same release" in str(other)
    assert worker.load("fake", {}, own_code()).name == "fake"


def test_errors_of_users_are_values():
    worker = Worker()
    assert isinstance(worker.load("nothing-like-it", {}, own_code()), BackendError)
    worker.load("fake", {}, own_code())

    def fails(backend, argument):
        raise DataError(argument)

    assert str(worker.call(fails, "a row is wrong")) == "a row is wrong"
    assert worker.call(lambda backend, argument: (backend.name, argument), 3) == ("fake", 3)
