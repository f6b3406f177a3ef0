"""Coverage-guided fuzzing of the reader of `.qevo` files, from small network files.

    pip install atheris
    python tests/compress/fuzz_container.py -max_total_time=600 NETWORK.safetensors ...

Not a test of the suite. Every input gets the right digest, so that what lies behind it is reached.
Anything but a network or a `CompressedFileError` is a finding; so are 30 seconds or 2 GiB for one
input.
"""

from __future__ import annotations

import hashlib
import pathlib
import sys
import tempfile
import zlib

import atheris

with atheris.instrument_imports(include=["qevo.compress"]):
    from qevo.compress import CompressedFileError, coder, compress, decompress, load
    from qevo.compress.header import _DICTIONARY
    from qevo.compress.varint import Reader, varint

MAX_WEIGHTS = 1 << 20  # of one input: keeps them quick


def signed(body: bytes) -> bytes:
    """A file with the digest of its content."""
    return body + hashlib.blake2b(body, digest_size=8).digest()


def taken_apart(data: bytes) -> bytes:
    """A real file as an input: the text of its header, a zero, and the other parts by size."""
    reader = Reader(data[5:-8])
    sizes = [reader.varint(1 << 30) for _ in range(reader.varint(1 << 30))]
    parts = [reader.take(size) for size in sizes]
    text = zlib.decompressobj(-15, zdict=_DICTIONARY).decompress(parts[0])
    return text + b"\0" + b"".join(varint(len(part)) + part for part in parts[1:])


def put_together(data: bytes) -> bytes:
    """The file of an input, whatever it is: sizes fit, the header is deflated, the digest right."""
    text, _, rest = data.partition(b"\0")
    packer = zlib.compressobj(1, zlib.DEFLATED, -15, zdict=_DICTIONARY)
    parts = [packer.compress(text) + packer.flush()]
    reader = Reader(rest)
    try:
        while True:
            parts.append(reader.take(reader.varint(len(rest))))
    except CompressedFileError:
        pass
    table = b"".join(map(varint, (len(parts), *map(len, parts))))
    return signed(b"qevo\1" + table + b"".join(parts))


def one_input(data: bytes) -> None:
    """Read it; write what was read, which must read back the same."""
    for file in (data, put_together(data) if b"\0" in data else signed(data)):
        try:
            network = decompress(file, max_weights=MAX_WEIGHTS)
        except CompressedFileError:
            continue
        again = decompress(compress(network))
        for name, kernel in network.weights.items():
            if kernel.tobytes() != again.weights[name].tobytes():
                raise AssertionError(f"{name} changed")


def seeds(folder: pathlib.Path, networks: list[str]) -> None:
    """Inputs to start from: real files, taken apart and without their digests.

    Each with many lanes too, which numpy decodes; files this small have few.
    """
    for bytes_per_lane in 8, coder._BYTES_PER_LANE:
        coder._BYTES_PER_LANE = bytes_per_lane
        for place, path in enumerate(networks):
            data = compress(load(path))
            (folder / f"parts_{place}_{bytes_per_lane}").write_bytes(taken_apart(data))
            (folder / f"whole_{place}_{bytes_per_lane}").write_bytes(data[:-8])


if __name__ == "__main__":
    files = [word for word in sys.argv[1:] if not word.startswith("-")]
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    with tempfile.TemporaryDirectory() as name:
        seeds(pathlib.Path(name), files)
        limits = ["-timeout=30", "-rss_limit_mb=2048", "-max_len=65536"]
        atheris.Setup([sys.argv[0], *limits, *options, name], one_input)
        atheris.Fuzz()
