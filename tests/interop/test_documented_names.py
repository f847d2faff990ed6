"""The documented import paths stay until 1.0, wherever the code lies."""

import importlib

import pytest

NAMES = {
    "official": ["load_official", "load_official_checkpoint", "load_tensorflow_checkpoint", "official_names"],
    "hf": ["Pix2SeqDConfig", "Pix2SeqDForUniversalSegmentation", "Pix2SeqDImageProcessor"],
}
HOMES = {"official": "interop.official", "hf": "interop.transformers"}


@pytest.mark.parametrize("module", HOMES)
def test_documented_module_forwards_to_interop(module: str):
    found, home = (importlib.import_module(f"pix2seqd.{name}") for name in (module, HOMES[module]))
    assert set(NAMES[module]) <= set(found.__all__)
    for name in found.__all__:
        assert getattr(found, name) is getattr(home, name)


def test_import_hf_registers_with_transformers():
    from transformers import AutoConfig

    import pix2seqd.hf

    assert AutoConfig.for_model("pix2seqd").__class__ is pix2seqd.hf.Pix2SeqDConfig
