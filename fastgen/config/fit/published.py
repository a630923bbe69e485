"""The sizes of published models, for plans on machines that do not have them. Data, counted on the published configs
(`tests/config/test_short_names.py`)."""

from __future__ import annotations

from fastgen.config.fit.memory import Part, Sizes

_NO_CLIP = Part(0)
_FLUX1_BLOCKS = (339_831_296,) * 19 + (141_591_808,) * 38
_FLUX1_TEXT = Part(4_762_310_656, 4_630_511_616, 3_623_878_656, largest_layer=41_943_040)
_CLIP = Part(123_060_480)
_VAE, _FLUX2_VAE, _QWEN_VAE = Part(83_819_683), Part(84_046_115), Part(126_892_531)


def _transformer(all: int, linear: int, embedder: int, blocks: tuple[int, ...], layer: int) -> Part:
    return Part(all, linear, linear, embedder, sum(blocks), max(blocks), blocks, layer)


def _text(all: int, linear: int, layer: int) -> Part:
    return Part(all, linear, linear, largest_layer=layer)


_FLUX1 = Sizes(
    _transformer(11_901_408_320, 11_885_346_816, 32_243_712, _FLUX1_BLOCKS, 56_623_104),
    _FLUX1_TEXT,
    _CLIP,
    _VAE,
    3072,
    10240,
)
_SCHNELL = Sizes(
    _transformer(11_891_178_560, 11_875_123_200, 22_020_096, _FLUX1_BLOCKS, 56_623_104),
    _FLUX1_TEXT,
    _CLIP,
    _VAE,
    3072,
    10240,
)
_KLEIN_4B = Sizes(
    _transformer(3_875_544_576, 3_851_157_504, 151_781_376, (245_367_296,) * 5 + (122_683_648,) * 20, 84_934_656),
    _text(3_215_021_568, 2_825_912_320, 24_903_680),
    _NO_CLIP,
    _FLUX2_VAE,
    3072,
    9728,
)
_KLEIN_9B = Sizes(
    _transformer(9_078_581_248, 9_027_190_784, 269_484_032, (436_208_128,) * 8 + (218_104_064,) * 24, 150_994_944),
    _text(6_024_834_048, 5_402_263_552, 50_331_648),
    _NO_CLIP,
    _FLUX2_VAE,
    4096,
    12288,
)
_FLUX2_DEV = Sizes(
    _transformer(32_223_281_152, 32_127_320_064, 644_874_240, (981_467_648,) * 8 + (490_733_824,) * 48, 339_738_624),
    _text(17_899_514_880, 17_228_103_680, 167_772_160),
    _NO_CLIP,
    _FLUX2_VAE,
    6144,
    32768,
)
_CHROMA = Sizes(
    _transformer(8_899_983_424, 8_884_912_128, 278_200_320, (226_548_224,) * 19 + (113_271_040,) * 38, 47_185_920),
    _FLUX1_TEXT,
    _NO_CLIP,
    _VAE,
    3072,
    10240,
)
_Z_IMAGE = Sizes(
    _transformer(6_154_908_736, 6_142_558_208, 524_288, (180_910_336,) * 30, 39_321_600),
    _text(4_022_468_096, 3_633_315_840, 24_903_680),
    _NO_CLIP,
    _VAE,
    3840,
    9728,
)
_QWEN_TRANSFORMER = _transformer(20_430_401_088, 20_413_415_424, 10_223_616, (339_831_296,) * 60, 56_623_104)
_QWEN_IMAGE = Sizes(
    _QWEN_TRANSFORMER, _text(7_070_619_136, 6_525_288_448, 67_895_296), _NO_CLIP, _QWEN_VAE, 3072, 18944
)
_QWEN_EDIT = Sizes(_QWEN_TRANSFORMER, _text(7_747_169_280, 7_199_817_728, 67_895_296), _NO_CLIP, _QWEN_VAE, 3072, 18944)
SIZES = {
    "black-forest-labs/FLUX.1-dev": _FLUX1,
    "black-forest-labs/FLUX.1-Krea-dev": _FLUX1,
    "black-forest-labs/FLUX.1-Kontext-dev": _FLUX1,
    "black-forest-labs/FLUX.1-schnell": _SCHNELL,
    "black-forest-labs/FLUX.2-klein-4B": _KLEIN_4B,
    "black-forest-labs/FLUX.2-klein-9B": _KLEIN_9B,
    "black-forest-labs/FLUX.2-dev": _FLUX2_DEV,
    "lodestones/Chroma1-HD": _CHROMA,
    "Tongyi-MAI/Z-Image-Turbo": _Z_IMAGE,
    "Qwen/Qwen-Image": _QWEN_IMAGE,
    "Qwen/Qwen-Image-2512": _QWEN_IMAGE,
    "Qwen/Qwen-Image-Edit-2511": _QWEN_EDIT,
}
"""Hub id -> sizes."""
