"""Small random damage to good bytes."""

from __future__ import annotations

import random

# What readers look at, and the ends of what a byte can be.
_TEMPTING = b'\0\xff\x7f\x80\n\r\t "\\{}[],:;\x1a0-'


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three changes: some replaced, cut out, put in, repeated, or cut off."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(data) + 1)
        length = chance.randint(1, 8)
        some = bytes(chance.choice(_TEMPTING) for _ in range(length))
        match chance.randrange(8):
            case 0 | 1 | 2:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 3:
                data[place : place + length] = some
            case 4:
                del data[place : place + length]
            case 5:
                data[place:place] = some
            case 6:
                data[place:place] = data[place : place + 5 * length]
            case _:
                del data[max(place, 1) :]
    return bytes(data)
