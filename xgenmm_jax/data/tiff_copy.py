"""A page of a TIFF as a TIFF of its own: the page's tags and its encoded pixels as they are, without decoding them."""

import struct
from typing import NamedTuple

OFFSETS = {273: 279, 324: 325}
"""Tags of where a page's strips or tiles lie, and those of how many bytes each has."""
ELSEWHERE = (330, 34665, 34853, 40965)
"""Tags that lead to further tables (other resolutions, EXIF, GPS), which are left out; the pixels need none."""
COMPRESSION = 259
COPIED = (1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000, 50001)
"""Compressions whose data name no other place in the file; old JPEG (6) does."""

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I"}
_LONG = 4


class _Entry(NamedTuple):
    tag: int
    kind: int
    count: int
    value: bytes


def alone(data: bytes, offset: int) -> bytes | None:
    """A TIFF of the page whose table stands at this place of a TIFF, with the same pixels; None for a rare sort."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    try:
        entries = {one.tag: one for one in _entries(data, order, offset) if one.tag not in ELSEWHERE}
        [compression] = _integers(order, entries[COMPRESSION]) if COMPRESSION in entries else [1]
        pairs = [(tag, sizes) for tag, sizes in OFFSETS.items() if tag in entries and sizes in entries]
        if compression not in COPIED or len(pairs) != 1:
            return None
        [(tag, sizes_tag)] = pairs
        offsets, sizes = _integers(order, entries[tag]), _integers(order, entries[sizes_tag])
    except (struct.error, ValueError, KeyError):
        return None
    if len(offsets) != len(sizes) or sum(sizes) > len(data):
        return None
    pieces = [data[start : start + size] for start, size in zip(offsets, sizes, strict=True)]
    return _written(order, entries, tag, pieces)


def _written(order: str, entries: dict[int, _Entry], tag: int, pieces: list[bytes]) -> bytes:
    """The table of the page, what of it does not fit into an entry, and the pieces, whose places stand under `tag`."""
    table_end = 8 + 2 + 12 * len(entries) + 4
    value_offsets = dict.fromkeys(entries, 0)
    end = table_end
    for one in entries.values():
        length = 4 * len(pieces) if one.tag == tag else len(one.value)
        if length > 4:
            value_offsets[one.tag] = end
            end += length + length % 2
    piece_offsets = []
    for piece in pieces:
        piece_offsets.append(end)
        end += len(piece) + len(piece) % 2
    entries = entries | {tag: _Entry(tag, _LONG, len(pieces), struct.pack(f"{order}{len(pieces)}I", *piece_offsets))}
    table, behind = [], []
    for one in sorted(entries.values()):
        is_inside = len(one.value) <= 4
        value = one.value.ljust(4, b"\0") if is_inside else struct.pack(f"{order}I", value_offsets[one.tag])
        table.append(struct.pack(f"{order}HHI", one.tag, one.kind, one.count) + value)
    for one in entries.values():
        if len(one.value) > 4:
            behind.append(one.value + bytes(len(one.value) % 2))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    padded = [piece + bytes(len(piece) % 2) for piece in pieces]
    return b"".join([head, *table, bytes(4), *behind, *padded])


def _entries(data: bytes, order: str, offset: int) -> list[_Entry]:
    """The tags of a page. Raises KeyError for an unknown type, ValueError where a value is cut off."""
    entries = []
    for number in range(struct.unpack_from(f"{order}H", data, offset)[0]):
        at = offset + 2 + 12 * number
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, at)
        length = _BYTES[kind] * count
        start = at + 8 if length <= 4 else struct.unpack_from(f"{order}I", data, at + 8)[0]
        value = data[start : start + length]
        if len(value) < length:
            raise ValueError(f"tag {tag} is cut off")
        entries.append(_Entry(tag, kind, count, value))
    return entries


def _integers(order: str, entry: _Entry) -> list[int]:
    return list(struct.unpack(f"{order}{entry.count}{_INTEGERS[entry.kind]}", entry.value))
