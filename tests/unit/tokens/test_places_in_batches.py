"""Places of sentences in packs and padded batches are the nodes of their own tokens, on the way to their last one."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.tokens.batches import batches, halve, padded_batches
from drillcore.tokens.packs import build_packs
from drillcore.tokens.places import Places, gathering
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule


def drawn(draw, count=60) -> Sequences:
    """Sentences of many lengths that share beginnings, some of them equal or a beginning of another."""
    trunks = [draw.integers(1, 5, draw.integers(1, 30)) for _ in range(6)]
    made = []
    for _ in range(count):
        trunk = trunks[draw.integers(len(trunks))]
        made.append(
            np.concatenate([trunk[: draw.integers(1, len(trunk) + 1)], draw.integers(1, 4, draw.integers(0, 6))])
        )
    return Sequences.of([*made, made[0], trunks[0], trunks[0][:1]])


def all_batches(kind, sentences, width=64):
    if kind == "padded":
        return list(padded_batches(sentences, width))
    found = list(batches(build_packs(sentences, PackRule(16, widest=width)), width))
    return [half for batch in found for half in (halve(batch) or (batch,))] if kind == "halved" else found


def path_to(batch, node) -> list[int]:
    """Nodes from the beginning of a tree to one of its nodes, by what each may see."""
    row, column = divmod(node, batch.token_ids_RW.shape[1])
    seen = np.flatnonzero(batch.subtree_end_RW[row, : column + 1] > column)
    return (row * batch.token_ids_RW.shape[1] + seen).tolist()


@pytest.mark.parametrize("kind", ["packed", "padded", "halved"])
def test_every_place_is_a_node_on_the_way_to_its_sentences_last_token(kind, seed):
    draw = np.random.default_rng(seed)
    sentences = drawn(draw)
    some = [draw.integers(0, n, draw.integers(0, 4)) for n in sentences.lengths_N]
    places = [Places.last(sentences), Places.of(some), Places.between(0 * sentences.lengths_N, sentences.lengths_N)]
    rows = [{}, {}, {}]
    for batch in all_batches(kind, sentences):
        found = gathering(batch, places)
        paths = {
            int(s): path_to(batch, int(batch.node_G[r])) for s, r in zip(batch.sentence_S, batch.row_S, strict=True)
        }
        assert len(np.unique(found.node_G)) == len(found.node_G) and not found.means
        tokens = batch.token_ids_RW.reshape(-1)
        for taken in found.taken:
            nodes = found.node_G[taken.row_T].tolist()
            for number, node in zip(taken.rows_T.tolist(), nodes, strict=True):
                sentence = int(np.searchsorted(places[taken.group].bounds_N1, number, side="right") - 1)
                index = int(places[taken.group].index_Q[number])
                assert paths[sentence][index] == node and tokens[node] == sentences[sentence][index]
                assert rows[taken.group].setdefault(number, sentence) == sentence
    assert [sorted(r) for r in rows] == [list(range(p.num_rows)) for p in places]


@pytest.mark.parametrize("kind", ["packed", "padded", "halved"])
def test_means_read_the_nodes_of_their_places(kind, seed):
    draw = np.random.default_rng(seed)
    sentences = drawn(draw)
    starts = draw.integers(0, sentences.lengths_N)
    mean = Places.between(starts, sentences.lengths_N, is_mean=True)
    done = []
    for batch in all_batches(kind, sentences):
        found = gathering(batch, [mean])
        assert not len(found.node_G) and not found.taken
        (one,) = found.means
        tokens = batch.token_ids_RW.reshape(-1)
        parts = np.split(one.node_T, one.begin_S[1:])
        for sentence, nodes in zip(one.rows_S.tolist(), parts, strict=True):
            assert tokens[nodes].tolist() == sentences[sentence][starts[sentence] :].tolist()
        assert set(one.node_T.tolist()) <= set(found.read.tolist())
        done += one.rows_S.tolist()
    assert sorted(done) == list(range(len(sentences)))


def test_without_places_the_last_tokens_are_gathered(seed):
    sentences = drawn(np.random.default_rng(seed))
    for batch in all_batches("packed", sentences):
        found = gathering(batch, ())
        assert found.node_G is batch.node_G and found.taken[0].rows_T is batch.sentence_S
        same = gathering(batch, [Places.last(sentences)])
        (ours,) = same.taken
        order = np.argsort(batch.sentence_S)
        assert same.node_G[ours.row_T][np.argsort(ours.rows_T)].tolist() == batch.node_G[batch.row_S][order].tolist()


@pytest.mark.parametrize("indices", [[[0], [3]], [[-1], [0]], [[0]]])
def test_places_outside_are_refused(indices):
    sentences = Sequences.of([[5, 6, 7], [5, 6]])
    with pytest.raises(ValueError, match="not within"):
        Places.of(indices).refuse_outside(sentences)
    with pytest.raises(ValueError, match="no place"):
        Places.of([[0], []], is_mean=True).refuse_outside(sentences)
    Places.of([[0], []]).refuse_outside(sentences)


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize("index", [-1, 2, 3])
def test_no_place_is_taken_from_another_sentence(kind, index):
    sentences = Sequences.of([[7, 8, 9, 10], [5, 6], [3, 4]])
    (batch,) = all_batches(kind, sentences)
    with pytest.raises(ValueError, match="not within"):
        gathering(batch, [Places.of([[0], [index], [0]])])
    with pytest.raises(ValueError, match="no place"):
        gathering(batch, [Places.of([[0], [], [0]], is_mean=True)])
