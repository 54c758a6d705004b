"""The parts of the report on where items lie: a map of them and of the codebook, and which neighbours agree.

Shapes: N items, S of them drawn, L levels, K codes per level, k neighbours.
"""

import collections
from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from letter_jax.data.dataset import CATEGORY_SEPARATOR
from letter_jax.ops.rounding import ceil_div
from letter_jax.reporting import figures, page
from letter_jax.reporting.finished import Finished
from letter_jax.reporting.page import Html
from letter_jax.tokenizer.diagnostics import id_groups
from letter_jax.workdir import CODEBOOKS, EMBEDDINGS, LATENTS

MAP_ITEMS, QUERY_ITEMS, NEIGHBOURS = 3000, 2000, 10
_CATEGORIES = 8
_CELLS_AT_ONCE = 2**23


def map_section(run: Finished) -> Html:
  return page.section(
    'map',
    'Map of items and codes',
    'Items that are alike to the tokenizer lie near each other. Look for colours that keep together (then codes mean '
    'something) and for crosses, which are codes, where no items are.',
    *_map(run),
  )


def _map(run: Finished) -> list[Html]:
  rows_NxD, codebook_Kxd, said = _rows_to_map(run)
  if rows_NxD is None:
    return [page.note(said)]
  drawn_S = draw(len(rows_NxD), MAP_ITEMS, run.config.seed)
  crosses_Kxd = np.zeros((0, rows_NxD.shape[1])) if codebook_Kxd is None else codebook_Kxd
  places = project(np.concatenate([rows_NxD[drawn_S], crosses_Kxd]), run.config.seed)
  places_Sx2, crosses_Kx2 = places[: len(drawn_S)], places[len(drawn_S) :]
  named_N, level = categories(run.texts, len(rows_NxD))
  shown = [name for name, _ in collections.Counter(named_N[drawn_S].tolist()).most_common() if name != 'other']
  names = [*shown, *(['other'] if 'other' in named_N[drawn_S] else [])]
  # The grey ones first, so that they hide nothing.
  by_category = {name: places_Sx2[named_N[drawn_S] == name] for name in reversed(names)}
  colours = dict(zip(names, figures.category_colours(names)))
  used_K = np.bincount(run.codes_NxL[:, 0], minlength=len(crosses_Kx2))[: len(crosses_Kx2)] > 0
  plot = figures.scatter('items', by_category, colours, crosses_Kx2[used_K], crosses_Kx2[~used_K])
  about = (
    f'Coloured by {level}, the {len(shown)} most frequent.'
    if level
    else 'Not coloured: the data set has no categories.'
  )
  return [
    page.legend(names, list(colours.values())) if level else Html(''),
    page.figure(plot, f'{len(drawn_S):,} of {len(rows_NxD):,} items', f'{said} {about}'),
  ]


def _rows_to_map(run: Finished) -> tuple[np.ndarray | None, np.ndarray | None, str]:
  """(latents, codes of level 1), else (text embeddings, None), else nothing; and a sentence that says which."""
  text = run.workdir.text_embeddings / EMBEDDINGS
  if not text.exists():
    return None, None, 'Not shown: semantic IDs were given, and this workdir has no text embeddings.'
  latents, codebooks = (run.workdir.semantic_ids / name for name in (LATENTS, CODEBOOKS))
  if not latents.exists():
    return (
      np.load(text, allow_pickle=False),
      None,
      'text embeddings, as the semantic IDs were given or made by an earlier version; no codes.',
    )
  return (
    np.load(latents, allow_pickle=False),
    np.load(codebooks, allow_pickle=False)[0],
    'latents of the tokenizer; crosses: codes of level 1, faint where dead.',
  )


def draw(count: int, most: int, seed: int) -> np.ndarray:
  """int64 [min(count, most)], which of `count` are drawn, in order."""
  return np.sort(np.random.default_rng(seed).choice(count, min(count, most), replace=False))


def project(rows_SxD: np.ndarray, seed: int) -> np.ndarray:
  """float [S, 2], by t-SNE (PCA first, to at most 32 dimensions); by PCA alone where rows are too few for it."""
  rows_SxD = np.asarray(rows_SxD, np.float64)
  # One thread: sums in another order would make another map of the same workdir.
  with threadpool_limits(1):
    width = min(32, *rows_SxD.shape)
    rows_SxD = (
      PCA(max(width, 2), svd_solver='full').fit_transform(rows_SxD)
      if width >= 2
      else (np.pad(rows_SxD, ((0, 0), (0, 1)))[:, :2])
    )
    if len(rows_SxD) < 50:
      return rows_SxD[:, :2]
    return TSNE(perplexity=30, max_iter=500, init='pca', random_state=seed).fit_transform(rows_SxD)


def categories(texts: Sequence[dict[str, str]] | None, items: int) -> tuple[np.ndarray, str]:
  """A name for every item, 'other' beyond the most frequent, and what level it is of ('' where there is none).

  The first level of `categories` is often the same for all: the second is taken where it tells more.
  """
  if texts is None or not any(text['categories'] for text in texts):
    return np.full(items, 'other'), ''
  levels = []
  for level in range(2):
    parts = (text['categories'].split(CATEGORY_SEPARATOR) for text in texts)
    levels.append([part[level] if len(part) > level and part[level] else 'other' for part in parts])
  level = int(np.argmax([_told(names) for names in levels]))
  frequent = {
    name for name, _ in collections.Counter(name for name in levels[level] if name != 'other').most_common(_CATEGORIES)
  }
  return (
    np.array([name if name in frequent else 'other' for name in levels[level]]),
    ('first', 'second')[level] + ' level of the categories',
  )


def _told(names: list[str]) -> float:
  """Nats that the colours of a level tell of an item."""
  counts = collections.Counter(name for name in names if name != 'other').most_common(_CATEGORIES)
  share = np.array([count for _, count in counts] + [len(names) - sum(count for _, count in counts)]) / len(names)
  return float(-np.sum(share * np.log(np.where(share > 0, share, 1))))


def neighbours_section(run: Finished) -> Html:
  return page.section(
    'neighbours',
    'Do neighbours agree?',
    f'An item has {NEIGHBOURS} nearest neighbours by what its text says and {NEIGHBOURS} by who buys it. LETTER wants '
    'semantic IDs that carry both: look at how much more often neighbours share the first codes than any two items do.',
    *_neighbours(run),
  )


def _neighbours(run: Finished) -> list[Html]:
  paths = {'text': run.workdir.text_embeddings / EMBEDDINGS, 'collaborative': run.workdir.collaborative / EMBEDDINGS}
  items = len(run.codes_NxL)
  if items <= NEIGHBOURS + 1:
    return [page.note(f'Not shown: {items} items are too few.')]
  drawn_S = draw(items, QUERY_ITEMS, run.config.seed)
  near = {name: nearest(np.load(path, allow_pickle=False), drawn_S) for name, path in paths.items() if path.exists()}
  if not near:
    return [page.note('Not shown: this workdir has neither text embeddings nor collaborative embeddings.')]
  rows, shares = [], {**{f'{name} neighbours': [] for name in near}, 'any two items': []}
  for length in range(1, run.codes_NxL.shape[1] + 1):
    group_N = id_groups(run.codes_NxL[:, :length])
    size = np.bincount(group_N)
    chance = float((size * (size - 1)).sum() / (items * (items - 1)))
    if chance == 0:
      break
    of_kind = [float(np.mean(group_N[near_SxK] == group_N[drawn_S, None])) for near_SxK in near.values()]
    for share, kept in zip((*of_kind, chance), shares.values()):
      kept.append(share)
    rows.append(
      (
        f'first {length} codes' if length > 1 else 'first code',
        *(f'{share:.2%} ({share / chance:,.0f}×)' for share in of_kind),
        f'{chance:.3%}',
      )
    )
  table = page.table(
    ['pairs with the same', *shares],
    rows,
    f'{len(drawn_S):,} of {items:,} items and their {NEIGHBOURS} nearest neighbours by cosine; in '
    'brackets, how many times that of any two items.',
  )
  plot = figures.lines(
    'prefixes',
    {name: (np.arange(1, len(share) + 1), np.array(share)) for name, share in shares.items()},
    'first codes compared',
    dots=frozenset(shares),
    logarithmic=True,
  )
  parts = [page.beside(table, page.figure(plot, 'Share of pairs with the same codes', 'the scale is logarithmic'))]
  if len(near) == 2:
    same = np.mean([len(np.intersect1d(a, b)) for a, b in zip(*near.values())]) / NEIGHBOURS
    parts.append(
      page.paragraph(
        f"Of an item's {NEIGHBOURS} neighbours by text, {same:.1%} are also among its {NEIGHBOURS} collaborative "
        f'neighbours; by chance it would be {NEIGHBOURS / (items - 1):.2%}. The lower this is, the more the '
        'collaborative alignment can add to what the text says.'
      )
    )
  else:
    parts.append(page.note('Only one of text and collaborative embeddings is in this workdir.'))
  return parts


def nearest(rows_NxD: np.ndarray, drawn_S: np.ndarray) -> np.ndarray:
  """int64 [S, k], the items other than itself with the largest cosine to each of `drawn_S`."""
  rows_NxD = np.asarray(rows_NxD, np.float32)
  unit_NxD = rows_NxD / np.maximum(np.linalg.norm(rows_NxD, axis=1, keepdims=True), 1e-12)
  size = max(_CELLS_AT_ONCE // len(rows_NxD), 1)
  found = []
  for part_P in np.array_split(drawn_S, ceil_div(len(drawn_S), size)):
    cosine_PxN = unit_NxD[part_P] @ unit_NxD.T
    cosine_PxN[np.arange(len(part_P)), part_P] = -np.inf
    found.append(np.argpartition(-cosine_PxN, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS])
  return np.concatenate(found)
