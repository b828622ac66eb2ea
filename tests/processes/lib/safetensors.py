"""Reads safetensors files, independently of the program that wrote them."""

import json
import pathlib
import struct


def read(path):
    """Returns {name: (dtype, shape, bytes)} of one file."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + length:]
    return {name: (entry["dtype"], tuple(entry["shape"]), bytes(body[slice(*entry["data_offsets"])])) for name, entry in header.items()}


def read_folder(folder):
    """Returns the tensors of all files of a checkpoint's folder; a name in two files is an error."""
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        for name, tensor in read(path).items():
            assert name not in tensors, f"{name} is in two files of {folder}"
            tensors[name] = tensor
    return tensors
