"""A colour profile to test with: Display P3, as telephones save it."""

from __future__ import annotations

import struct

from PIL import ImageCms

# Red, green and blue in XYZ, adapted to D50 (source: Apple's "Display P3.icc").
_PRIMARIES = {
    b"rXYZ": (0.51512, 0.2412, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.1571, 0.06657, 0.78407),
}


def display_p3() -> bytes:
    """sRGB's profile with the primaries of Display P3; both have one curve."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack(">I", data[128:132])
    for at in range(132, 132 + 12 * count, 12):
        name, offset, _ = struct.unpack(">4sII", data[at : at + 12])
        if name in _PRIMARIES:
            values = [round(value * 65536) for value in _PRIMARIES[name]]
            data[offset + 8 : offset + 20] = struct.pack(">3i", *values)
    return bytes(data)
