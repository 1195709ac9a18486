"""Captions images by TensorFlow's C library alone, through ctypes: `python -I c_library.py REQUEST.json`.

This is how model servers and bindings of other languages load a SavedModel. The process imports no TensorFlow. The
request holds "library" (path of libtensorflow_cc), "model" (folder), "input" and "outputs" (tensors of the signature,
such as "StatefulPartitionedCall:0") and "images" (paths). The last line of standard output is the list of outputs, for
each a list of texts or numbers.
"""

import ctypes
import json
import pathlib
import sys
from collections.abc import Sequence

FLOAT, INT32, STRING = 1, 3, 7  # TF_DataType
OK = 0
TEXT = 24  # bytes of a TF_TString


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class Library:
    """The functions of the C library that are needed, with the types that they return."""

    POINTERS = (
        *("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel"),
        *("TF_GraphOperationByName", "TF_AllocateTensor", "TF_TensorData", "TF_StringGetDataPointer"),
    )
    SIZES = ("TF_StringGetSize", "TF_Dim")

    def __init__(self, path: str):
        """Loads the library and makes a status, which every call that can fail takes."""
        self._library = ctypes.CDLL(path)
        for name in (*self.POINTERS, "TF_Message"):
            getattr(self._library, name).restype = ctypes.c_char_p if name == "TF_Message" else ctypes.c_void_p
        for name in self.SIZES:
            getattr(self._library, name).restype = ctypes.c_int64
        self.status = ctypes.c_void_p(self.TF_NewStatus())

    def __getattr__(self, name: str):
        return getattr(self._library, name)

    def check(self) -> None:
        """Raises RuntimeError if the last call failed."""
        if self.TF_GetCode(self.status) != OK:
            raise RuntimeError(self.TF_Message(self.status).decode())


class Session:
    """A loaded model."""

    def __init__(self, library: Library, folder: str):
        """Loads the graph that is tagged for serving, with its weights."""
        self._library = library
        self._graph = ctypes.c_void_p(library.TF_NewGraph())
        options, tags = ctypes.c_void_p(library.TF_NewSessionOptions()), (ctypes.c_char_p * 1)(b"serve")
        self._session = ctypes.c_void_p(
            library.TF_LoadSessionFromSavedModel(
                options, None, folder.encode(), tags, 1, self._graph, None, library.status
            )
        )
        library.check()

    def run(self, name: str, images: Sequence[bytes], outputs: Sequence[str]) -> list[list]:
        """Returns the outputs of these names for encoded images."""
        found = (ctypes.c_void_p * len(outputs))()
        self._library.TF_SessionRun(
            *(self._session, None),
            *((Output * 1)(self._output(name)), (ctypes.c_void_p * 1)(self._texts(images)), 1),
            *((Output * len(outputs))(*map(self._output, outputs)), found, len(outputs)),
            *(None, 0, None, self._library.status),
        )
        self._library.check()
        return [self._values(ctypes.c_void_p(tensor)) for tensor in found]

    def _output(self, name: str) -> Output:
        operation, _, index = name.partition(":")
        pointer = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        if not pointer:
            raise RuntimeError(f"the graph has no operation {operation}")
        return Output(pointer, int(index))

    def _texts(self, texts: Sequence[bytes]) -> int:
        """A tensor of strings `[N]`."""
        library, size = self._library, TEXT * len(texts)
        shape = (ctypes.c_int64 * 1)(len(texts))
        tensor = library.TF_AllocateTensor(STRING, shape, 1, ctypes.c_size_t(size))
        data = library.TF_TensorData(ctypes.c_void_p(tensor))
        for i, text in enumerate(texts):
            at = ctypes.c_void_p(data + TEXT * i)
            library.TF_StringInit(at)
            library.TF_StringCopy(at, text, ctypes.c_size_t(len(text)))
        return tensor

    def _values(self, tensor: ctypes.c_void_p) -> list:
        """The values of a tensor `[N]`."""
        library = self._library
        kind, count, data = library.TF_TensorType(tensor), library.TF_Dim(tensor, 0), library.TF_TensorData(tensor)
        if kind != STRING:
            return list(({FLOAT: ctypes.c_float, INT32: ctypes.c_int32}[kind] * count).from_address(data))
        places = [ctypes.c_void_p(data + TEXT * i) for i in range(count)]
        sizes = [library.TF_StringGetSize(at) for at in places]
        pointers = [library.TF_StringGetDataPointer(at) for at in places]
        return [ctypes.string_at(p, s).decode() for p, s in zip(pointers, sizes, strict=True)]


def main(request: str) -> None:
    """Prints the outputs."""
    asked = json.loads(pathlib.Path(request).read_text(encoding="utf-8"))
    session = Session(Library(asked["library"]), asked["model"])
    images = [pathlib.Path(path).read_bytes() for path in asked["images"]]
    found = session.run(asked["input"], images, asked["outputs"])
    assert "tensorflow" not in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
