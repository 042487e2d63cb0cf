"""A T5 of a pipeline's folder embeds captions as diffusers' PixArt pipeline does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

pytest.importorskip("transformers", reason="pip install 'kind-diffusion[captions]' to embed captions")
from diffusers import PixArtAlphaPipeline
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from kind_runtimes.captions import Caption
from kind_train.cli import main
from kind_train.data.captions.store import NULL_CAPTION, WordStore
from tiny_captions import TEXTS, write_photos
from tiny_pixart import CHANNELS


@pytest.fixture(scope="module")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text side of a pipeline: a random T5 of `CHANNELS` and a tokenizer of whole words."""
    path = tmp_path_factory.mktemp("text") / "pixart"
    words = ["<pad>", "</s>", "<unk>", *sorted({word for text in TEXTS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(path / "tokenizer")
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(words), d_model=CHANNELS, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(path / "text_encoder")
    (path / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline"}))
    return path


def embed(pixart: Path, output: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["embed", "--text-encoder", str(pixart), "--output", str(output), *options])


def ask_diffusers(pixart: Path, caption: str) -> torch.Tensor:
    """The words that a pipeline gives of a caption and reads by its mask."""
    encoder = T5EncoderModel.from_pretrained(pixart / "text_encoder")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(pixart / "tokenizer")
    parts = {"vae": None, "transformer": None, "scheduler": None}
    pipeline = PixArtAlphaPipeline(tokenizer=tokenizer, text_encoder=encoder, **parts)
    text, mask, _, _ = pipeline.encode_prompt(caption, device="cpu")
    words: torch.Tensor = text[0][mask[0] == 1].detach()
    return words


def test_captions_are_embedded_as_the_pipeline_does(pixart: Path, tmp_path: Path) -> None:
    done = embed(pixart, tmp_path / "words", "--data", str(write_photos(tmp_path / "photos")), "--batch-size", "3")
    assert done.exit_code == 0, done.output
    assert "4 captions, 4 of them new" in done.stdout
    store = WordStore(tmp_path / "words")
    assert (store.record.channels, store.record.tokens) == (CHANNELS, 120)
    for caption in (*TEXTS, NULL_CAPTION):
        expected = ask_diffusers(pixart, caption)
        (words,), mask = store.read([caption])
        assert mask.tolist() == [[1.0] * len(expected)]
        torch.testing.assert_close(words, expected, rtol=1e-3, atol=1e-3)


def test_more_captions_are_added_and_another_encoder_is_not(pixart: Path, tmp_path: Path) -> None:
    few, more = write_photos(tmp_path / "few", 2), write_photos(tmp_path / "more", 3)
    words = tmp_path / "words"
    assert embed(pixart, words, "--data", str(few)).exit_code == 0
    shard = (words / "shards" / "00000" / "words.safetensors").read_bytes()
    assert "already holds embedded captions" in embed(pixart, words, "--data", str(more)).stderr
    done = embed(pixart, words, "--data", str(more), "--resume")
    assert "4 captions, 1 of them new" in done.stdout
    assert (words / "shards" / "00000" / "words.safetensors").read_bytes() == shard
    assert {*TEXTS, NULL_CAPTION} == {
        caption for caption in (*TEXTS, NULL_CAPTION, "a sea") if caption in WordStore(words)
    }
    other = embed(pixart, words, "--data", str(more), "--resume", "--tokens", "20")
    assert "was made by T5 of pixart" in other.stderr


def test_one_caption_is_written_for_drawing(pixart: Path, tmp_path: Path) -> None:
    done = embed(pixart, tmp_path / "boat.safetensors", "--caption", "A red BOAT")
    assert done.exit_code == 0, done.output
    caption = Caption.read(tmp_path / "boat.safetensors")
    for words, text in ((caption.text, "a red boat"), (caption.null_text, "")):
        torch.testing.assert_close(torch.from_numpy(words), ask_diffusers(pixart, text))
