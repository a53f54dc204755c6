"""Files that run code in whoever unpickles them, for tests that nobody does."""

import pickle
import zipfile
from pathlib import Path


class _Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def poison(folder, name, *, mark):
    """Write a file that makes ``mark`` when it is unpickled, in the form that its readers expect.

    Args:
        folder: Where to.
        name: Its name, which decides the form.
        mark: File whose presence says that code ran.
    """
    path = folder / name
    if path.suffix in (".bin", ".pt", ".pth"):
        import torch

        torch.save(_Bomb(mark), path)
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", _npy(mark))
    elif path.suffix == ".npy":
        path.write_bytes(_npy(mark))
    else:
        path.write_bytes(pickle.dumps(_Bomb(mark)))
    return path


def _npy(mark):
    import io

    import numpy as np

    stream = io.BytesIO()
    np.save(stream, np.array([_Bomb(mark)], dtype=object), allow_pickle=True)
    return stream.getvalue()
