"""Prepared data sets in the format that only TensorFlow writes."""

import struct
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader


def to_tfrecord(folder: Path) -> None:
    """Rewrite prepared ArrayRecord files as TFRecord, which only TensorFlow writes."""
    for path in folder.glob("*.array_record-*"):
        source = ArrayRecordReader(str(path))
        records = source.read(0, source.num_records())
        source.close()
        framed = [
            struct.pack("<QI", len(r), masked_crc(struct.pack("<Q", len(r)))) for r in records
        ]
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(
            b"".join(
                head + record + struct.pack("<I", masked_crc(record))
                for head, record in zip(framed, records, strict=True)
            )
        )
        path.unlink()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated right by 15, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
