"""Tensors of safetensors files, read and written one at a time, so that a model is never completely in memory."""

import json
import math
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor

from alignment.errors import ModelError
from alignment.policy.weight_files import INDEX, WHOLE, tensor_shapes

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LARGEST_FILE = "50GB"  # as transformers' `save_pretrained` splits a model
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's bytes are."""

    file: mmap.mmap
    start: int
    end: int
    dtype: str
    shape: tuple[int, ...]


class TensorFiles:
    """The tensors of a local model's folder, mapped into memory: their bytes are read when they are used.

    Raises: ModelError if a file is damaged or missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tensor_shapes(folder)  # refuses damaged files
        whole = folder / WHOLE
        files = [whole] if whole.is_file() else sorted({folder / name for name in _weight_map(folder).values()})
        self._places = {name: place for file in files for name, place in _places(file)}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def get(self, name: str) -> Tensor:
        """Return a tensor over the file's bytes; what is written into it changes the memory alone, never the file.

        Raises: ModelError if its type is none that weights have.
        """
        place = self._places[name]
        dtype = DTYPES.get(place.dtype)
        if dtype is None:
            raise ModelError(f"{self.folder}: {name} is stored as {place.dtype}; only {', '.join(DTYPES)} can be read.")
        count = math.prod(place.shape)
        if count == 0:
            return torch.empty(place.shape, dtype=dtype)
        if place.start % dtype.itemsize:
            return torch.frombuffer(bytearray(place.file[place.start : place.end]), dtype=dtype).view(place.shape)
        return torch.frombuffer(place.file, dtype=dtype, count=count, offset=place.start).view(place.shape)

    def forget(self, name: str) -> None:
        """Give back the memory of a tensor that was read; it is read again when it is next used."""
        place = self._places[name]
        start = -(-place.start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = place.end // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            place.file.madvise(mmap.MADV_DONTNEED, start, length)


def _weight_map(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / INDEX).read_bytes())["weight_map"]
    return found


def _places(path: Path) -> Iterator[tuple[str, _Place]]:
    with path.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(size))
        file = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield name, _Place(file, 8 + size + start, 8 + size + end, entry["dtype"], tuple(entry["shape"]))


def write_tensors(folder: Path, shapes: Shapes, dtype: torch.dtype, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write a model's tensors, all of one type, to the same bytes that transformers' `save_pretrained` writes.

    Args:
        shapes: of all tensors, by name. tensors: each once, in any order; one is held at a time.
    Raises: ModelError if `tensors` are not those of `shapes`.
    """
    planned = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    split = split_torch_state_dict_into_shards(
        planned, filename_pattern="model{suffix}.safetensors", max_shard_size=LARGEST_FILE
    )
    places: dict[str, tuple[BinaryIO, int]] = {}
    streams: list[BinaryIO] = []
    try:
        for name, inside in split.filename_to_tensors.items():
            stream: BinaryIO = (folder / name).open("wb")
            streams.append(stream)
            places |= _begun(stream, {each: shapes[each] for each in inside}, dtype)
        for name, tensor in tensors:
            if name not in places or tuple(tensor.shape) != shapes[name] or tensor.dtype != dtype:
                raise ModelError(f"{name} of {tuple(tensor.shape)} was not expected among the model's weights.")
            file, start = places.pop(name)
            file.seek(start)
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    finally:
        for stream in streams:
            stream.close()
    if places:
        raise ModelError(f"the model's weights lack {min(places)}.")
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _begun(stream: BinaryIO, shapes: Shapes, dtype: torch.dtype) -> dict[str, tuple[BinaryIO, int]]:
    """Write a file's header; return where each tensor goes, in the order of safetensors: by name."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + math.prod(shapes[name]) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    stream.truncate(8 + len(text) + end)
    return {name: (stream, 8 + len(text) + header[name]["data_offsets"][0]) for name in shapes}
