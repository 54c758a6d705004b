"""The sections of the report on the item space: a map of items and codes, and how far neighbours share codes.

Shapes: N items, S of them sampled, D dimensions, L levels, K codes per level, k neighbours, C crosses on the map.
"""

import collections
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from letter_jax.data.dataset import CATEGORY_SEPARATOR
from letter_jax.reporting import figures, page
from letter_jax.reporting.finished import Finished
from letter_jax.system.wording import counted
from letter_jax.tokenizer.diagnostics import id_groups

MAP_ITEMS, QUERY_ITEMS, NEIGHBOURS = 3000, 2000, 10
_CATEGORIES = 8
_DISTANCES_MIB = 256  # of the distances that are held at a time


def map_section(run: Finished) -> page.Section:
  """A map of a sample of the items, with the codes of level 1 where the tokenizer was trained here."""
  return page.Section(
    'map',
    'Map',
    'Map of items and codes',
    'Items that are similar to the tokenizer are close together. Look for colours that cluster (the codes are then '
    'meaningful) and for crosses, the codes, far from any items.',
    _map(run),
  )


def _map(run: Finished) -> list[Markup]:
  workdir = run.workdir
  if not workdir.has_rows(workdir.text_embeddings):
    return [page.note('Not shown: the semantic IDs were given, and this workdir has no text embeddings.')]
  if workdir.latents.exists():
    rows_NxD = np.load(workdir.latents, allow_pickle=False)
    crosses_CxD = np.load(workdir.codebooks, allow_pickle=False)[0]
    caption = 'latents of the tokenizer; crosses are the codes of level 1, faint if dead.'
  else:
    rows_NxD = workdir.read_rows(workdir.text_embeddings)
    crosses_CxD = np.zeros((0, rows_NxD.shape[1]))
    caption = 'text embeddings, as the semantic IDs were given; no codes.'

  sampled_S = sample(len(rows_NxD), MAP_ITEMS, run.config.seed)
  places = project(np.concatenate([rows_NxD[sampled_S], crosses_CxD]), run.config.seed)
  places_Sx2, crosses_Cx2 = places[: len(sampled_S)], places[len(sampled_S) :]
  used_C = np.bincount(run.codes_NxL[:, 0], minlength=len(crosses_Cx2))[: len(crosses_Cx2)] > 0

  category_N, level = categories(run.texts, len(rows_NxD))
  category_S = category_N[sampled_S]
  frequent = [name for name, _ in collections.Counter(category_S.tolist()).most_common() if name != 'other']
  names = [*frequent, *(['other'] if 'other' in category_S else [])]
  # Reversed, so that 'other' is drawn first and hides nothing.
  by_category = {name: places_Sx2[category_S == name] for name in reversed(names)}
  colours = dict(zip(names, figures.category_colours(names)))
  plot = figures.scatter(by_category, colours, crosses_Cx2[used_C], crosses_Cx2[~used_C])
  colouring = (
    f'The colours are the {len(frequent)} most frequent categories of the {level} level.'
    if level
    else 'Not coloured: the data set has no categories.'
  )
  figure = page.figure(plot, f'{len(sampled_S):,} of {counted(len(rows_NxD), "item")}', f'{caption} {colouring}')
  return [page.legend(colours), figure] if level else [figure]


def sample(count: int, most: int, seed: int) -> np.ndarray:
  """A sample without replacement of `min(count, most)` of the indices 0..count-1, int64, in ascending order."""
  return np.sort(np.random.default_rng(seed).choice(count, min(count, most), replace=False))


def project(rows_SxD: np.ndarray, seed: int) -> np.ndarray:
  """Projects rows to float [S, 2] by PCA to at most 32 dimensions and t-SNE; by PCA alone if there are fewer than 50.

  Deterministic: sums are done in one thread, since a different order would give a different map of the same rows.
  """
  rows_SxD = np.asarray(rows_SxD, np.float64)
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
  """The category of each item, from the first or the second level of `categories`, whichever is more informative.

  The first level is often the same for all items.

  Args:
    texts: the texts of all items, or None.
    items: how many there are, N.

  Returns:
    The names, str [N], 'other' where an item has no category or an infrequent one; and 'first' or 'second', which is
    '' if no item has a category.
  """
  if texts is None or not any(text['categories'] for text in texts):
    return np.full(items, 'other'), ''
  levels = []
  for level in range(2):
    parts_N = (text['categories'].split(CATEGORY_SEPARATOR) for text in texts)
    levels.append([parts[level] if len(parts) > level and parts[level] else 'other' for parts in parts_N])
  level = int(np.argmax([_entropy(names) for names in levels]))
  frequent = {name for name, _ in _frequent(levels[level])}
  return np.array([name if name in frequent else 'other' for name in levels[level]]), ('first', 'second')[level]


def _frequent(names: Sequence[str]) -> list[tuple[str, int]]:
  """The most frequent names but 'other', with their counts."""
  return collections.Counter(name for name in names if name != 'other').most_common(_CATEGORIES)


def _entropy(names: Sequence[str]) -> float:
  """Entropy in nats of the categories, all but the most frequent counted as one."""
  counts = [count for _, count in _frequent(names)]
  share = np.array([*counts, len(names) - sum(counts)]) / len(names)
  return float(-np.sum(share * np.log(np.where(share > 0, share, 1))))


def neighbours_section(run: Finished) -> page.Section:
  """How much more often neighbours by text, and by collaborative embedding, share codes than any two items do."""
  return page.Section(
    'neighbours',
    'Neighbours',
    'Do neighbours share codes?',
    f'For each item, the {NEIGHBOURS} nearest neighbours by text and the {NEIGHBOURS} nearest by collaborative '
    'embedding. LETTER aims for semantic IDs that carry both kinds of similarity: look at how much more often '
    'neighbours share their first codes than any two items do.',
    _neighbours(run),
  )


def _neighbours(run: Finished) -> list[Markup]:
  workdir = run.workdir
  folders = {'text': workdir.text_embeddings, 'collaborative': workdir.collaborative}
  items = len(run.codes_NxL)
  if items <= NEIGHBOURS + 1:
    return [page.note(f'Not shown: too few items ({items}).')]
  sampled_S = sample(items, QUERY_ITEMS, run.config.seed)
  nearest_of = {
    kind: nearest(workdir.read_rows(folder), sampled_S) for kind, folder in folders.items() if workdir.has_rows(folder)
  }
  if not nearest_of:
    return [page.note('Not shown: this workdir has neither text embeddings nor collaborative embeddings.')]

  rows = []
  shares: dict[str, list[float]] = {**{f'{kind} neighbours': [] for kind in nearest_of}, 'any two items': []}
  for length in range(1, run.codes_NxL.shape[1] + 1):
    group_N = id_groups(run.codes_NxL[:, :length])
    size = np.bincount(group_N)
    chance = float((size * (size - 1)).sum() / (items * (items - 1)))
    if chance == 0:
      break
    share_of_kind = [
      float(np.mean(group_N[nearest_Sxk] == group_N[sampled_S, None])) for nearest_Sxk in nearest_of.values()
    ]
    for share, shares_so_far in zip((*share_of_kind, chance), shares.values()):
      shares_so_far.append(share)
    rows.append(
      (
        f'first {length} codes' if length > 1 else 'first code',
        *(f'{share:.2%} ({share / chance:,.0f}×)' for share in share_of_kind),
        f'{chance:.3%}',
      )
    )
  table = page.table(
    ['pairs with equal', *shares],
    rows,
    f'{len(sampled_S):,} of {counted(items, "item")} and their {NEIGHBOURS} nearest neighbours by cosine similarity; '
    'in brackets, the ratio to any two items.',
  )
  plot = figures.lines(
    {name: (np.arange(1, len(share) + 1), np.array(share)) for name, share in shares.items()},
    'number of codes compared',
    dots=frozenset(shares),
    logarithmic=True,
  )
  figure = page.figure(plot, 'Share of pairs with equal first codes', 'logarithmic scale')
  return [page.side_by_side(table, figure), _overlap(list(nearest_of.values()), items)]


def _overlap(nearest_of: Sequence[np.ndarray], items: int) -> Markup:
  """How many neighbours by text are neighbours by collaborative embedding, too."""
  if len(nearest_of) < 2:
    return page.note('This workdir has only one of text and collaborative embeddings.')
  shared = np.mean([len(np.intersect1d(text_k, collaborative_k)) for text_k, collaborative_k in zip(*nearest_of)])
  return page.paragraph(
    f"On average, {shared / NEIGHBOURS:.1%} of an item's {NEIGHBOURS} neighbours by text are also among its "
    f'{NEIGHBOURS} collaborative neighbours; by chance it would be {NEIGHBOURS / (items - 1):.2%}. The lower this '
    'share is, the more the collaborative alignment can add to the text.'
  )


def nearest(rows_NxD: np.ndarray, query_S: np.ndarray) -> np.ndarray:
  """The nearest neighbours of some items by cosine similarity, without the item itself.

  Args:
    rows_NxD: float, one embedding per item, N > NEIGHBOURS.
    query_S: int, the items whose neighbours are searched.

  Returns:
    int64 [S, k], items in descending order of similarity, k = NEIGHBOURS.
  """
  rows_NxD = np.asarray(rows_NxD, np.float32)
  search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, metric='cosine').fit(rows_NxD)
  with config_context(working_memory=_DISTANCES_MIB):
    nearest_Sxk1 = search.kneighbors(rows_NxD[query_S], return_distance=False)
  keep_Sxk1 = nearest_Sxk1 != query_S[:, None]
  keep_Sxk1[keep_Sxk1.all(axis=1), -1] = False  # duplicates of the item are as near as the item itself
  return nearest_Sxk1[keep_Sxk1].reshape(len(query_S), NEIGHBOURS)
