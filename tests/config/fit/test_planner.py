"""Quality first, then speed: precision is lowered only where no placement fits, and the fastest placement is taken."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from fastgen.bench import synthetic
from fastgen.config.fit.card import Card
from fastgen.config.fit.memory import Work, need
from fastgen.config.fit.planner import LOWER, PROCESS_GIB, Model, Planner
from fastgen.config.optimizations import Compile, Offload, Optimizations, Quantize
from fastgen.errors import SettingsError
from fastgen.resolver.sizes import of_flux

SIZES = of_flux(synthetic.TRANSFORMER, synthetic.CLIP, synthetic.T5, synthetic.VAE)
WHY = {"quantize": "the default", "quantize_text": "the default", "offload": "the default", "compile": "the default"}
PLAIN = Optimizations(why=WHY)
FP8 = Optimizations(quantize=Quantize("fp8"), compile=Compile(True), why=WHY)


def model(batch: int = 1, side: int = 1024, reference: int = 0) -> Model:
    work = Work(batch, side * side // 256, reference, 512, max(side * side, reference * 256))
    return Model("FLUX.1-dev", SIZES, work, "bfloat16", 2)


def refuse(choices: Optimizations) -> str:
    """As `opt` refuses on a GPU with FP8 arithmetic."""
    from fastgen import opt
    from fastgen.config.hardware import Gpu

    return opt.refuse(choices, Gpu(0, "GPU-a", "NVIDIA RTX 4090", 24.0, "8.9"))


@pytest.fixture(autouse=True)
def packages(monkeypatch):
    monkeypatch.setattr("fastgen.opt.quantize.unfit", lambda name: "")


def planned(free: float, host: float = 60.0, asked: Optimizations = PLAIN, fixed=(), what: Model | None = None, **card):
    space = Card("cuda:0 (NVIDIA Test)", free, free, host, **card)
    return Planner(what or model(), space, refuse, {name: f"--{name}" for name in fixed}).plan(asked)


def chosen(*arguments, **how) -> tuple[str, str]:
    choices, _ = planned(*arguments, **how)
    return choices.quantize.word(), choices.offload.kind


@pytest.mark.parametrize(
    ("free", "exact", "fast"),
    [
        (11.7, ("none", "group"), ("none", "group")),
        (15.7, ("none", "group"), ("fp8", "model")),
        (23.5, ("none", "group"), ("fp8", "text")),
        (31.2, ("none", "model"), ("fp8", "none")),
        (39.2, ("none", "none"), ("fp8", "none")),
        (44.1, ("none", "none"), ("fp8", "none")),
        (78.0, ("none", "none"), ("fp8", "none")),
        (137.6, ("none", "none"), ("fp8", "none")),
    ],
)
@pytest.mark.parametrize("reference", [0, 4096])
def test_flux_on_cards_from_12_to_141_gb(free, exact, fast, reference):
    what = model(reference=reference)
    assert chosen(free, what=what) == exact
    assert chosen(free, what=what, asked=FP8) == fast


@pytest.mark.parametrize(
    ("free", "host", "expected"),
    [
        (23.5, 24.0, ("8bit", "text")),  # 22.2 + 3 GiB for streaming are not there; T5 is read from its file
        (11.7, 24.0, ("4bit", "model")),
        (11.7, 8.0, None),
        (23.5, 8.0, ("8bit", "text")),
        (8.2, 60.0, ("4bit,text:4bit", "model")),
        (39.2, 2.0, ("none", "none")),
        (23.5, 0.0, ("none", "group")),  # unknown
    ],
)
def test_precision_is_lowered_only_where_no_placement_fits(free, host, expected):
    if expected is None:
        with pytest.raises(SettingsError, match=r"of main memory.*8\.0 GiB of main memory are free"):
            planned(free, host)
    else:
        assert chosen(free, host) == expected


def test_engines_share_the_main_memory():
    assert chosen(23.5, 60.0, engines=2) == ("none", "group")
    assert chosen(23.5, 60.0, engines=4) == ("8bit", "text")


FREE = [
    7.0,
    8.0,
    10.0,
    11.0,
    11.5,
    12.0,
    13.0,
    15.0,
    17.0,
    19.0,
    20.0,
    22.0,
    23.0,
    24.0,
    25.0,
    30.0,
    34.0,
    36.0,
    37.0,
    80.0,
]
WHATS = [model(*how) for how in itertools.product((1, 4), (512, 1024, 2048), (0, 4096))]


@pytest.mark.parametrize("asked", [PLAIN, FP8], ids=["exact", "fast"])
@pytest.mark.parametrize(
    "what", WHATS, ids=lambda what: f"{what.work.batch}-{what.work.pixels}-{what.work.reference_tokens}"
)
@pytest.mark.parametrize("host", [12.0, 27.0, 60.0])
def test_more_memory_is_never_worse_and_plans_fit(asked, what, host):
    order = [(word, kind) for word in dict.fromkeys((asked.quantize.word(), *LOWER)) for kind in Offload.kinds]
    best = len(order)
    for free in FREE:
        try:
            choices, plan = planned(free, host, asked, what=what)
        except SettingsError:
            assert best == len(order), f"{free} GiB are refused and less was not"
            continue
        assert plan.need == need(SIZES, what.work, choices, 2) and plan.need.gib <= free
        assert not plan.need.host_gib or plan.need.host_gib + PROCESS_GIB <= host
        assert not refuse(choices)
        rank = order.index((choices.quantize.word(), choices.offload.kind))
        assert rank <= best, f"{free} GiB: {order[rank]} after {order[best]}"
        best = rank
    assert best == 0


def test_each_choice_has_its_reason():
    choices, plan = planned(23.5)
    assert choices.explain() == ["offload group (to fit: bfloat16 with --offload model needs 23.7 GiB)"]
    first, second = plan.explain()
    assert first == (
        "bfloat16 with --offload group needs 11.3 of the 23.5 GiB that are free on cuda:0 (NVIDIA Test) (calculated, "
        "while encoding prompts: weights 9.4, activations 0.9, CUDA 0.8, margin 0.2), and 22.2 GiB of main memory"
    )
    assert second == (
        "not chosen: bfloat16 with everything on the GPU needs 36.0 GiB, with --offload text needs 33.6 GiB, with "
        "--offload model needs 23.7 GiB"
    )
    table = plan.as_table()
    assert (table["chosen"], table["needs_gib"], table["main_memory_gib"]) == (
        "bfloat16 with --offload group",
        11.3,
        22.2,
    )
    assert len(table["not_chosen"]) == 3
    choices, plan = planned(23.5, 24.0)
    assert "quantize 8bit (to fit: bfloat16 with --offload group needs 25.2 GiB of main memory)" in choices.explain()
    assert any("--quantize text:8bit with everything on the GPU needs" in line for line in plan.explain())
    choices, _ = planned(11.7, asked=FP8)
    lines = choices.explain()
    assert "compile off (to fit: layers that are streamed cannot be compiled)" in lines
    assert "quantize none (to fit: --quantize fp8 with --offload model needs 12.8 GiB)" in lines
    _, plan = Planner(model(), Card("cuda:0 (NVIDIA Test)", 30.0, 78.0, 60.0), refuse, {}).plan(PLAIN)
    assert plan.explain()[1] == "other programs hold 48.0 GiB of this GPU"
    choices, plan = planned(80.0)
    assert choices == PLAIN and not plan.refused and len(plan.explain()) == 1


def test_what_a_flag_sets_stays():
    keep = {"fixed": ("offload",)}
    assert chosen(23.5, asked=replace(PLAIN, offload=Offload("none")), **keep) == ("8bit,text:8bit", "none")
    assert chosen(80.0, asked=replace(PLAIN, offload=Offload("model")), **keep) == ("none", "model")
    assert chosen(15.0, asked=replace(PLAIN, quantize=Quantize("4bit")), fixed=("quantize",)) == ("4bit", "model")
    compiled = replace(PLAIN, compile=Compile(True))
    assert planned(23.5, asked=compiled)[0].compile == Compile()
    kept = planned(23.5, asked=compiled, fixed=("compile",))[0]
    assert kept.compile.on and (kept.quantize.word(), kept.offload.kind) == ("8bit", "text")


def test_a_refusal_says_what_is_needed_and_what_fits():
    asked = replace(PLAIN, offload=Offload("text"))
    with pytest.raises(SettingsError) as refused:
        planned(23.5, asked=asked, fixed=("quantize", "offload"))
    text = str(refused.value)
    assert text == (
        "--model FLUX.1-dev: does not fit on cuda:0 (NVIDIA Test), which has 23.5 GiB free: bfloat16 with --offload "
        "text needs 33.6 GiB. Without --offload, bfloat16 with --offload group fits (it needs 11.3 GiB)"
    )
    assert refused.value.exit_code == 2
    space = Card("cuda:0 (NVIDIA Test)", 4.0, 23.5, 60.0)
    with pytest.raises(
        SettingsError, match=r"4\.0 GiB free: .*which is the least; .*other programs hold 19\.5 GiB"
    ) as none:
        Planner(model(), space, refuse, {}).plan(PLAIN)
    assert "--quantize 4bit,text:4bit with --offload model needs 7.8 GiB" in str(none.value)


def test_flags_may_use_the_margin_and_no_more():
    """What the user chose runs where it may fit; what the planner chooses has a margin."""
    flags = {"asked": replace(PLAIN, offload=Offload("none")), "fixed": ("quantize", "offload")}
    least, whole = (getattr(need(SIZES, model().work, PLAIN, 2), name) for name in ("least_gib", "gib"))
    assert planned(whole, **flags)[1].warning == ""
    assert "leaves no margin on cuda:0" in planned(least, **flags)[1].warning
    with pytest.raises(SettingsError, match="does not fit"):
        planned(least - 0.1, **flags)


def test_what_cannot_be_combined_is_said_as_it_is():
    flags = {"asked": replace(FP8, offload=Offload("group")), "fixed": ("quantize", "offload", "compile")}
    with pytest.raises(SettingsError, match="--quantize fp8: quantized weights do not follow --offload group"):
        planned(80.0, **flags)
