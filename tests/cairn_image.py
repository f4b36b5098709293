# SPDX-License-Identifier: Apache-2.0
"""Changes records of an image and makes its checksums right again (src/image/FORMAT.md), to be images of hosts and programs that are
not at hand:

    with Image("a.cairn") as image:
        for record in image.records(1):
            message = Message(record.data)
            message.set(14, 7)
            record.data = message.bytes()

Records may grow: what follows their block moves. Page blocks, which the map names by their place, come before all records.
"""
import ctypes
import struct

from cairn_test import Skip, check

PAGE = 4096
RECORDS, PAGES = 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def xxh3(data, seed=0):
    try:
        library = ctypes.CDLL("libxxhash.so.0")
    except OSError as error:
        raise Skip(str(error))
    library.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    library.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    return library.XXH3_64bits_withSeed(bytes(data), len(data), seed)


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


class Message:
    """A protobuf message as a list of [field number, wire type, value]."""

    def __init__(self, data=b""):
        self.fields, at = [], 0

        def number():
            nonlocal at
            value = shift = 0
            while True:
                value |= (data[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if data[at - 1] < 128:
                    return value
        while at < len(data):
            key = number()
            wire = key & 7
            if wire == VARINT:
                value = number()
            else:
                size = number() if wire == BYTES else 8 if wire == FIXED64 else 4
                value = bytes(data[at:at + size])
                at += size
            self.fields.append([key >> 3, wire, value])

    def get(self, field, default=0):
        found = self.all(field)
        return found[-1] if found else default

    def all(self, field):
        return [value for number, _, value in self.fields if number == field]

    def drop(self, field):
        self.fields = [one for one in self.fields if one[0] != field]

    def set(self, field, value, wire=None):
        """In place of all fields of this number; a number is a varint, 4 bytes with wire=FIXED32."""
        if wire is None:
            wire = BYTES if isinstance(value, bytes) else VARINT
        self.drop(field)
        self.add(field, value, wire)

    def add(self, field, value, wire):
        self.fields.append([field, wire, value.to_bytes(4, "little") if wire == FIXED32 else value])

    def bytes(self):
        out = b""
        for number, wire, value in self.fields:
            out += varint(number << 3 | wire)
            out += varint(value) if wire == VARINT else (varint(len(value)) if wire == BYTES else b"") + value
        return out


class Record:
    def __init__(self, tag, data):
        self.tag, self.data = tag, data


class Image:
    def __init__(self, path):
        self.path = path

    def __enter__(self):
        with open(self.path, "rb") as file:
            self.file = bytearray(file.read())
        halves = struct.unpack_from("<QQ", self.file, 32)
        self.seed = halves[0] ^ halves[1]
        self.blocks = {}  # of records, by their place
        self.index, _, count = struct.unpack_from("<QQQ", self.file, len(self.file) - PAGE + 32)
        self.entries = [struct.unpack_from("<QII", self.file, self.index + 64 + 32 * i) for i in range(count)]
        for offset, _, kind in self.entries:
            if kind == RECORDS:
                self.blocks[offset] = self.cut(offset)
        return self

    def cut(self, offset):
        used, = struct.unpack_from("<Q", self.file, offset + 32)
        at, records = offset + 64, []
        while at < offset + 64 + used:
            tag, length = struct.unpack_from("<II", self.file, at)
            records.append(Record(tag, bytes(self.file[at + 8:at + 8 + length])))
            at += 8 + length
        return records

    def records(self, tag):
        return [record for records in self.blocks.values() for record in records if record.tag == tag]

    def __exit__(self, failed, *_):
        if failed:
            return
        first = min(self.blocks)
        check(all(kind != PAGES for offset, _, kind in self.entries if offset > first), "a page block behind records may not move")
        old, self.file = self.file, self.file[:first]
        index = bytearray(old[self.index + 64:len(old) - PAGE])
        for i, (offset, length, _) in enumerate(self.entries):
            if offset < first:
                continue
            payload = old[offset + 64:offset + length]
            used, = struct.unpack_from("<Q", old, offset + 32)
            if offset in self.blocks:
                payload = b"".join(struct.pack("<II", one.tag, len(one.data)) + one.data for one in self.blocks[offset])
                used = len(payload)
            struct.pack_into("<QI", index, 32 * i, *self.put(old[offset:offset + 64], payload, used))
        end = len(self.file)
        self.put(old[self.index:self.index + 64], index, len(self.entries) * 32)
        trailer = old[len(old) - PAGE:]
        struct.pack_into("<QQ", trailer, 24, len(self.file) + PAGE, end)
        struct.pack_into("<Q", self.file, 64, len(self.file) + PAGE)
        self.file += trailer
        for page in (0, len(self.file) - PAGE):
            struct.pack_into("<Q", self.file, page + 4088, xxh3(self.file[page:page + 4088]))
        with open(self.path, "wb") as file:
            file.write(self.file)

    def put(self, header, payload, used):
        """Appends a block; returns its place and length."""
        offset, length = len(self.file), (64 + used + PAGE - 1) // PAGE * PAGE
        payload = bytes(payload[:used]) + bytes(length - 64 - used)
        struct.pack_into("<QQ", header, 8, length, offset)
        struct.pack_into("<QQ", header, 32, used, xxh3(payload, self.seed))
        struct.pack_into("<Q", header, 56, 0)
        struct.pack_into("<Q", header, 56, xxh3(header, self.seed))
        self.file += header + payload
        return offset, length
