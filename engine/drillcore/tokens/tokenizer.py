"""From sentences to token ids: special tokens, templates; computed once per distinct tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from drillcore.errors import JobError, ModelError, TextError
from drillcore.system.bounds import BeyondBounds, bounded, parse_json, problem_with, read_bytes
from drillcore.system.files import digest
from drillcore.system.quiet import quiet_transformers, without_panics
from drillcore.texts.conversations import conversation, messages_of
from drillcore.texts.rows import RowTable
from drillcore.tokens.cache import cached
from drillcore.tokens.identity import folder_of, tokenizer_digest
from drillcore.tokens.sequences import Sequences

BATCH, BATCH_CHARACTERS = 4096, 2**24
# Characters of a sentence. More are too many tokens for any model, and tokenizing takes hundreds of bytes for each.
LONGEST = 4_000_000
# A chat template may read a sentence before it decides what to write; this one shows what it writes by itself.
PROBE = "a"
PROBE_MESSAGES = [{"role": "user", "content": PROBE}]
# The largest id of a vocabulary, and how many tokens a tokenizer may make of one letter, those that it adds included.
MOST_IDS, MOST_ADDED = 2**24, 100_000
LARGE = re.compile(rb":\s*\d{8}")
# GPT-2's letters for bytes: those that can be printed stand for themselves.
_SHOWN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [b for b in range(256) if b not in _SHOWN]
BYTES = {chr(b): b for b in _SHOWN} | {chr(256 + i): b for i, b in enumerate(_OTHERS)}
# What a chat template may take for one sentence: a thousand times what one that is in use takes.
TEMPLATE_SECONDS, TEMPLATE_BYTES = 2.0, 512 * 2**20
MARKED_DATE = "{%- macro strftime_now(form) -%}\ue000{{ form }}\ue001{%- endmacro -%}"


@dataclass(frozen=True)
class TokenPolicy:
    """How text becomes tokens, as fingerprints record it; they hold the token ids too, which decide the states.

    tokenizer: `Tokenizer.recorded`. template: text around each sentence, `chat`, or None.
    """

    tokenizer: str
    special_tokens: str
    template: str | None


@dataclass(frozen=True)
class Around:
    """What is written around each sentence of a dataset.

    template: text that holds {text}, `chat` for the tokenizer's own chat template, `messages` for the same where each
    text is a conversation, or None. chat: arguments of the chat template.
    """

    template: str | None = None
    chat: tuple[tuple[str, str | bool | int | float], ...] = ()

    @property
    def is_chat(self) -> bool:
        """Whether the tokenizer's chat template writes all that is encoded."""
        return self.template in ("chat", "messages")


# What a folder holds one of where it holds a tokenizer.
FILES = ("*token*", "vocab*", "merges.txt", "*.model")


def has_no_file(location: str) -> bool:
    """Whether a folder holds no file that a tokenizer could be read from."""
    folder = Path(location)
    return folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in FILES)


class Tokenizer:
    """A model's tokenizer under a job's policy.

    digest: of everything that decides an id, chat templates aside. recorded: the shorter digest that stores hold;
    tokenizers that differ may share it.
    """

    def __init__(self, location: str, special_tokens: str, **arguments: Any) -> None:
        from transformers import AutoTokenizer

        _refuse_ids(location, arguments.get("revision"))
        try:
            with quiet_transformers(), without_panics():
                self._tokenizer = AutoTokenizer.from_pretrained(location, **arguments)
                probed = len(self._tokenizer([PROBE])["input_ids"][0])
                if probed > MOST_ADDED:
                    raise ValueError(f"it makes {probed:,} tokens of one letter")
                self.digest = tokenizer_digest(self._tokenizer, location, arguments.get("revision"))
                self.recorded = self._recorded()
        except Exception as error:  # its files decide what code runs here, and each class stumbles in its own way
            why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if has_no_file(location):
                why = "there is none"
            raise ModelError(
                f"the tokenizer of {location} could not be read: {why}",
                hint="A model directory needs its tokenizer files, as they were saved, beside the weights.",
            ) from error
        self._special = special_tokens != "none"
        self._written_bytes: dict[int, bytes] = {}

    def _recorded(self) -> str:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        body = backend.to_str() if backend is not None else sorted(self._tokenizer.get_vocab().items())
        around = [str(self._tokenizer.chat_template), type(self._tokenizer).__name__]
        return digest([body, around])

    def policy(self, template: str | None) -> TokenPolicy:
        """The policy for a dataset with this template."""
        return TokenPolicy(self.recorded, "auto" if self._special else "none", template)

    def key(self, around: Around) -> str:
        """Digest of everything that decides the ids of sentences within `around`, at this moment.

        A chat template counts as what it writes: default system prompts, thinking flags, today's date.
        """
        written = self.render(PROBE, around) if around.template == "chat" else None
        if around.template == "messages":
            # What it writes for any conversation cannot be seen from one.
            written = str(self._tokenizer.chat_template) + self.render(conversation(PROBE_MESSAGES), around)
        return digest([self.digest, self._special, around.template, [list(pair) for pair in around.chat], written])

    def render(self, text: str, around: Around) -> str:
        """The text that is encoded for a sentence; raises JobError for `chat` where the tokenizer has no template."""
        return next(self.rendered([text], around))

    def rendered(self, texts: Iterable[str], around: Around) -> Iterator[str]:
        """Each text with what is around it; raises JobError for `chat` where the tokenizer has no template."""
        if not around.is_chat:
            before, after = (around.template or "{text}").split("{text}")
            yield from (before + text + after for text in texts)
            return
        self._check_arguments(around)
        if around.template == "chat":
            yield from (self._chat(text, dict(around.chat)) for text in texts)
            return
        for text in texts:
            messages, more = messages_of(text)
            yield self.render_messages(messages, {**dict(around.chat), **more})

    def encode(self, texts: Sequence[str], around: Around = Around(), then: Sequence[str] = ()) -> list[list[int]]:
        """Token ids of each text within `around`; raises JobError for `chat` where the tokenizer has no template.

        then: text that follows each rendered one and is encoded together with it.
        """
        # A chat template takes longer than the tokenizer, and a sentence may come once for each continuation.
        distinct = list(dict.fromkeys(texts))
        written = dict(zip(distinct, self.rendered(distinct, around), strict=True))
        rendered = [written[text] for text in texts]
        if then:
            rendered = [before + after for before, after in zip(rendered, then, strict=True)]
        # A chat template writes special tokens itself.
        return self._encode(rendered, self._special and not around.is_chat)

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        return [list(map(int, ids)) for ids in self._call(texts, special)["input_ids"]]

    def _call(self, texts: Sequence[str], special: bool, **wanted: bool) -> Any:
        """What the tokenizer makes of whole texts; raises ModelError where it fails."""
        try:
            with without_panics():
                return self._tokenizer(
                    list(texts),
                    add_special_tokens=special,
                    padding=False,
                    truncation=False,
                    return_attention_mask=False,
                    verbose=False,
                    **wanted,
                )
        except RuntimeError as error:
            raise ModelError(
                f"the tokenizer fails on some text: {error}", hint="Take the tokenizer that was saved with the model."
            ) from error

    def encode_rendered(
        self, rendered: Sequence[str], around: Around
    ) -> list[tuple[list[int], list[tuple[int, int]]]] | None:
        """Token ids of texts that `around` was written around, and each token's characters; None if unknown.

        Raises TextError for a text that no tokenizer takes, ModelError where this one fails.
        """
        if not self._tokenizer.is_fast:
            return None
        for text in rendered:
            if any("\ud800" <= c <= "\udfff" for c in text):
                raise TextError(f"the text {text[:80]!r} holds half of a surrogate pair", hint="Replace it.")
        found = self._call(rendered, self._special and not around.is_chat, return_offsets_mapping=True)
        return list(zip(found["input_ids"], found["offset_mapping"], strict=True))

    @cached_property
    def added_texts(self) -> dict[int, str]:
        """How tokens that were added to the vocabulary are written, special ones among them."""
        return {int(i): str(token) for i, token in getattr(self._tokenizer, "added_tokens_decoder", {}).items()}

    @cached_property
    def normalizes(self) -> bool:
        """Whether texts are changed before they are split: case, accents, compatibility forms."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is None or backend.normalizer is not None

    def written_bytes(self, token: int) -> bytes:
        """A token as it is written in a text, in UTF-8, as far as it can be told from the token alone."""
        if token not in self._written_bytes:
            self._written_bytes[token] = self._bytes_of(token)
        return self._written_bytes[token]

    def _bytes_of(self, token: int) -> bytes:
        if token in self.added_texts:
            return self.added_texts[token].encode()
        (piece,) = self.pieces([token])
        if self._writes_bytes and all(c in BYTES for c in piece):
            return bytes(BYTES[c] for c in piece)
        if re.fullmatch("<0x[0-9A-F]{2}>", piece):
            return bytes([int(piece[3:5], 16)])
        return piece.removeprefix("##").removesuffix("</w>").replace("▁", " ").encode()

    @cached_property
    def _writes_bytes(self) -> bool:
        """Whether the vocabulary is written in letters that stand for bytes, as GPT-2's is."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return backend is not None and "ByteLevel" in f"{backend.pre_tokenizer} {backend.normalizer} {backend.decoder}"

    def spans(self, text: str) -> list[tuple[int, int]] | None:
        """First character of each token of a text and the one after its last, no special tokens; None if unknown."""
        if not self._tokenizer.is_fast:
            return None
        (offsets,) = self._call([text], False, return_offsets_mapping=True)["offset_mapping"]
        return [(int(start), int(stop)) for start, stop in offsets]

    @cached_property
    def added(self) -> tuple[list[int], list[int]]:
        """Token ids that the tokenizer adds before and after each sentence, chat templates aside."""
        (whole,), (bare,) = self._encode([PROBE], self._special), self._encode([PROBE], False)
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare) :]
        return [], []

    @cached_property
    def unknown(self) -> tuple[int, str] | None:
        """The token that stands for text outside the vocabulary, and how it is written; None where there is none."""
        number = self._tokenizer.unk_token_id
        return None if number is None else (int(number), str(self._tokenizer.unk_token))

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids of the special tokens."""
        listed = {int(i) for i in self._tokenizer.all_special_ids}
        decoder = getattr(self._tokenizer, "added_tokens_decoder", {})
        return frozenset(listed | {int(i) for i, token in decoder.items() if getattr(token, "special", False)})

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as the vocabulary writes it."""
        return [str(piece) for piece in self._tokenizer.convert_ids_to_tokens([int(i) for i in ids])]

    def _check_arguments(self, around: Around) -> None:
        """Raise JobError for an argument that the chat template does not read: it would pass over a misspelt one."""
        for name, _ in around.chat:
            if self._tokenizer.chat_template and (name == "messages" or not self.reads(name)):
                raise JobError(
                    f"chat: {name}: the chat template of this tokenizer reads no such argument",
                    hint="Leave it out, or check its name in chat_template.jinja or tokenizer_config.json.",
                )

    def reads(self, argument: str) -> bool:
        """Whether the chat template reads an argument of this name."""
        written = f"{self._tokenizer.chat_template} add_generation_prompt"
        return re.search(rf"\b{re.escape(argument)}\b", written) is not None

    def date_in(self, around: Around) -> str | None:
        """Today's date as the chat template writes it; None where it writes none."""
        if not around.is_chat or not self.reads("strftime_now"):
            return None
        # The template itself, where a macro takes the place of the function that tells the date.
        template = MARKED_DATE + str(self._tokenizer.get_chat_template())
        marked = self._chat(PROBE, {**dict(around.chat), "chat_template": template})
        found = re.search("\ue000(.*?)\ue001", marked)
        return None if found is None else datetime.now().strftime(found[1])

    def _chat(self, text: str, arguments: dict[str, Any]) -> str:
        return self.render_messages([{"role": "user", "content": text}], {"add_generation_prompt": True, **arguments})

    def render_messages(self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> str:
        """What the tokenizer's chat template writes for a conversation; raises JobError where it cannot."""
        if not self._tokenizer.chat_template:
            raise JobError(
                "template: chat, or messages, but this tokenizer has no chat template",
                hint="Write the template as text that holds {text}.",
            )
        what = "one user message" if len(messages) == 1 else f"{len(messages)} messages"
        try:
            # A template is a program that comes with the model.
            with bounded(TEMPLATE_SECONDS, TEMPLATE_BYTES):
                written = str(self._tokenizer.apply_chat_template([*map(dict, messages)], tokenize=False, **arguments))
            written.encode()
        except BeyondBounds as beyond:
            raise _template_error(f"{beyond} for {what}") from None
        except Exception as error:  # whatever the template raises or stumbles over
            raise _template_error(f"fails on {what}: {error or type(error).__name__}") from error
        if len(written) > LONGEST:
            raise _template_error(f"writes {len(written):,} characters for {what}, too many for any model")
        return written

    def assistant_marks(
        self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]
    ) -> tuple[list[int], list[int]] | None:
        """Token ids of a conversation, and 1 for those that the template marks as said by the assistant.

        None where the template has no `{% generation %}`. Raises what `render_messages` does.
        """
        if not re.search(r"{%-?\s*generation\s*-?%}", str(self._tokenizer.chat_template)):
            return None
        self.render_messages(messages, arguments)
        found: Any = self._tokenizer.apply_chat_template(
            [*map(dict, messages)], tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **arguments
        )
        return list(found["input_ids"]), list(found["assistant_masks"])


def _template_error(what: str) -> JobError:
    return JobError(
        f"template: chat: the tokenizer's chat template {what}", hint="Write the template as text that holds {text}."
    )


def _refuse_ids(location: str, revision: str | None) -> None:
    """Raise ModelError for a vocabulary with an id so large that the library would keep room for all below it."""
    folder = folder_of(location, revision)
    path = None if folder is None else folder / "tokenizer.json"
    if path is None or problem_with(path):
        return
    try:
        text = read_bytes(path)
        # Reading a whole vocabulary as Python objects takes longer than a search for large numbers.
        named = parse_json(text) if LARGE.search(text) else None
        model = named.get("model") if isinstance(named, dict) else None
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        added = named.get("added_tokens") if isinstance(named, dict) else None
    except (OSError, ValueError):
        return  # the library says what is wrong
    ids = [*vocabulary.values()] if isinstance(vocabulary, dict) else []
    ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    largest = max((i for i in ids if isinstance(i, int)), default=0)
    if largest > MOST_IDS:
        raise ModelError(
            f"the tokenizer of {location} has a token of the id {largest:,}, more than any model has ({MOST_IDS:,} at "
            "most)",
            hint="Take the tokenizer.json that was saved with the model.",
        )


def tokenize(rows: RowTable, tokenizer: Tokenizer, around: Around = Around()) -> Sequences:
    """Token ids of all rows, taken from the cache or computed and written there; memory-mapped.

    Raises TextError where a sentence is too long for any model, JobError where the template cannot be used, ModelError
    where the tokenizer gives other tokens each time.
    """
    key = digest([rows.digest, tokenizer.key(around)])
    written = 0 if around.template == "messages" else len(tokenizer.render(PROBE, around))
    encoded = (ids for texts in text_batches(rows, written) for ids in tokenizer.encode(texts, around))

    def encode(numbers: Sequence[int]) -> list[list[int]]:
        return tokenizer.encode([rows.texts(i, i + 1)[0] for i in numbers], around)

    try:
        return cached("tokens", key, rows.num_rows, encode, lambda: encoded)
    except OverflowError:
        raise ModelError(
            "the tokenizer gives ids of 2^31 or more", hint="Take the tokenizer that was saved with the model."
        ) from None


def text_batches(rows: RowTable, around: int = 0) -> Iterator[list[str]]:
    """The sentences, so many at a time that they fit into memory; raises TextError where one is too long for any model.

    around: characters that are written around each.
    """
    size = max(1, min(BATCH, BATCH_CHARACTERS // max(1, around)))
    for start in range(0, rows.num_rows, size):
        texts = rows.texts(start, min(start + size, rows.num_rows))
        for i, text in enumerate(texts, start):
            if len(text) > LONGEST:
                problem = f"sentence {i} has {len(text):,} characters, too many for any model"
                raise TextError(problem, hint="Split it or leave it out.")
        yield texts
