"""A synthetic store, generated from a seed: a catalogue with texts, and users with habits.

A model can learn:
- from the text: an item's category, product type, brand and collection;
- from the interactions: popularity, which is long-tailed;
- from a user's history: a few interests (categories) that drift;
- from sequences: habits that link an item to the next. They are the next piece of its collection, in an order that the
  text does not reveal; one of the product types that complement its type, in any department; and one of the item's
  favourites among the complements.
Habits are likely but not certain, so no recommender is always right.

Weights are integers and draws come from numpy's Generator, so that a seed gives the same store on every platform.
Shapes: U users, T time steps, N items, C categories, P product types, F favourites of an item.
"""

import dataclasses

import numpy as np

from letter_jax.configuration import SyntheticConfig
from letter_jax.data import ragged
from letter_jax.data import synthetic_vocabulary as words
from letter_jax.data.dataset import CATEGORY_SEPARATOR, Dataset, Interactions

MIN_LENGTH = 5
MAX_LENGTH = 200
COMPLEMENTS = 3  # types that complement a type
FAVOURITES = 6  # items that often follow an item
INTERESTS = 3  # categories of a user
COLLECTION_SIZE = 6
DRIFT = 0.2  # probability, per step, that a user turns to another interest
TRIES = 4  # draws to avoid an item that the user already has

# Shares of the habits among the steps that follow one.
COLLECTION_HABIT, FAVOURITE_HABIT, COMPLEMENT_HABIT, EARLIER_HABIT = 0.25, 0.25, 0.40, 0.10


def synthesize(config: SyntheticConfig, seed: int) -> Dataset:
  """Generates the store of the given size and seed.

  The catalogue does not depend on `config.num_users`. Every user has at least 5 interactions; an item occurs twice in a
  sequence only if the catalogue is too small to avoid it.

  Args:
    config: numbers of users and items, mean length, and strength of the habits.
    seed: determines the store together with the config.

  Returns:
    A data set named 'synthetic' with a title, brand, categories and description for every item.
  """
  rng = np.random.default_rng([seed, 0])
  catalogue = _catalogue(rng, config.num_items)
  texts = _texts(rng, catalogue)
  items, offsets = _sequences(np.random.default_rng([seed, 1]), config, catalogue)
  # So far, items of a kind have neighbouring ids; a random permutation makes ids uninformative.
  id_N = np.random.default_rng([seed, 2]).permutation(config.num_items)
  shuffled = tuple(texts[item] for item in np.argsort(id_N))
  users = tuple(f'user-{user}' for user in range(config.num_users))
  return Dataset('synthetic', Interactions(id_N[items].astype(np.int32), offsets, config.num_items, users), shuffled)


@dataclasses.dataclass(frozen=True)
class _Shelf:
  """A product type: its place in the category tree and its vocabulary."""

  department: str
  category: str
  noun: str
  uses: list[str]
  materials: list[str]
  features: list[str]


@dataclasses.dataclass(frozen=True)
class _Catalogue:
  """Items sorted by type, so that types and categories are ranges of items.

  Attributes:
    shelves: one for each type.
    type_N, category_N, brand_N, collection_N: int64 [N], indices of each item's type, category, brand and collection.
    brands: brand names.
    type_bounds_P, category_bounds_C: int64 [P + 1], [C + 1], ranges of items.
    cumulative_weight_N: int64 [N + 1], sum of the popularity weights of the items before; the last is the total.
    next_N: int64 [N], the next piece of the collection.
    complements_PxF: int64 [P, COMPLEMENTS], types that complement a type, most likely first.
    favourites_NxF: int64 [N, FAVOURITES], items that often follow an item, most likely first.
  """

  shelves: list[_Shelf]
  type_N: np.ndarray
  category_N: np.ndarray
  brand_N: np.ndarray
  collection_N: np.ndarray
  brands: list[str]
  type_bounds_P: np.ndarray
  category_bounds_C: np.ndarray
  cumulative_weight_N: np.ndarray
  next_N: np.ndarray
  complements_PxF: np.ndarray
  favourites_NxF: np.ndarray


def _shelves() -> list[list[_Shelf]]:
  """The vocabulary as one list of types for each category."""
  categories = []
  for department, shelf in words.SHELVES.items():
    for label, types in shelf.items():
      category, uses = label.removesuffix(')').split(' (')
      categories.append(
        [
          _Shelf(department, category, noun, uses.split(', '), *(part.split(', ') for part in about.split('; ')))
          for noun, about in types.items()
        ]
      )
  return categories


def _catalogue(rng: np.random.Generator, num_items: int) -> _Catalogue:
  every_category = _shelves()
  count = min(len(every_category), max(2, num_items // 40))
  kept = [every_category[category] for category in sorted(rng.permutation(len(every_category))[:count])]
  shelves = [shelf for category in kept for shelf in category]
  category_P = np.repeat(np.arange(count), [len(category) for category in kept])
  types = len(shelves)

  # Every type has an item if there are enough items; the others are distributed unevenly.
  share_P = rng.integers(1, 6, types)
  extra = rng.integers(0, share_P.sum(), max(num_items - types, 0))
  type_N = np.sort(
    np.concatenate([rng.permutation(types)[:num_items], np.searchsorted(np.cumsum(share_P), extra, side='right')])
  )
  category_N = category_P[type_N]

  # A brand sells in one category only; its items are divided into collections, each with a random order.
  brands_per_category = max(2, min(16, num_items // count // 20))
  names = [start + end for end in words.BRAND_ENDS for start in words.BRAND_STARTS]
  brands = [names[i] for i in rng.permutation(len(names))[: count * brands_per_category]]
  brand_N = category_N * brands_per_category + rng.integers(0, brands_per_category, num_items)
  order_N = np.lexsort((rng.permutation(num_items), brand_N))
  first_N = np.searchsorted(brand_N[order_N], brand_N[order_N])
  rank_N = np.arange(num_items) - first_N
  group_N = brand_N[order_N] * num_items + rank_N // COLLECTION_SIZE
  collection_N, next_N = np.empty(num_items, np.int64), np.empty(num_items, np.int64)
  first_name_N = rng.integers(0, len(words.COLLECTIONS), len(brands))[brand_N[order_N]]
  collection_N[order_N] = first_name_N + rank_N // COLLECTION_SIZE
  start_N, end_N = np.searchsorted(group_N, group_N), np.searchsorted(group_N, group_N, side='right')
  next_N[order_N] = order_N[start_N + (np.arange(num_items) + 1 - start_N) % (end_N - start_N)]

  rank_N = rng.permutation(num_items)
  weight_N = np.rint(1e6 / (rank_N + 60.0)).astype(np.int64) + 1
  cumulative_weight_N = ragged.offsets(weight_N)
  type_bounds_P = np.searchsorted(type_N, np.arange(types + 1))
  category_bounds_C = np.searchsorted(category_N, np.arange(count + 1))

  # Complements are drawn from the types that have items, in any department.
  present = np.flatnonzero(np.diff(type_bounds_P))
  complements_PxF = present[rng.integers(0, len(present), (types, COMPLEMENTS))]
  complement_NxF = complements_PxF[type_N][:, np.arange(FAVOURITES) % COMPLEMENTS]
  favourites_NxF = _draw_in(rng, cumulative_weight_N, type_bounds_P, complement_NxF)
  return _Catalogue(
    shelves,
    type_N,
    category_N,
    brand_N,
    collection_N,
    brands,
    type_bounds_P,
    category_bounds_C,
    cumulative_weight_N,
    next_N,
    complements_PxF,
    favourites_NxF,
  )


def _draw_in(
  rng: np.random.Generator, cumulative_weight_N: np.ndarray, bounds: np.ndarray, group: np.ndarray
) -> np.ndarray:
  """Draws items by popularity, each from the range of items of its group; int64, of the shape of `group`."""
  low, high = cumulative_weight_N[bounds[group]], cumulative_weight_N[bounds[group + 1]]
  drawn = low + (rng.random(group.shape) * (high - low)).astype(np.int64)
  return np.searchsorted(cumulative_weight_N, drawn, side='right') - 1


def _likeliest_first(rng: np.random.Generator, count: int, choices: int) -> np.ndarray:
  """Draws int64 [count] from 0 .. choices - 1, each of which is twice as likely as the next."""
  edges = np.cumsum(2 ** np.arange(choices - 1, -1, -1))
  return np.searchsorted(edges, rng.integers(0, edges[-1], count), side='right')


def _sequences(
  rng: np.random.Generator, config: SyntheticConfig, catalogue: _Catalogue
) -> tuple[np.ndarray, np.ndarray]:
  """Draws all sequences: items, int64 [interactions], and offsets, int64 [U + 1]."""
  lengths_U = np.minimum(
    MIN_LENGTH - 1 + rng.geometric(1 / (config.mean_length - MIN_LENGTH + 1), config.num_users), MAX_LENGTH
  )
  # Users are sorted by length, so that those with more than t steps are a prefix.
  order_U = np.argsort(-lengths_U, kind='stable')
  sorted_U = lengths_U[order_U]
  items_UxT = np.full((config.num_users, sorted_U[0]), -1, np.int64)
  weight_N = catalogue.cumulative_weight_N
  everything = np.array([0, len(weight_N) - 1])
  whole_U = np.zeros(config.num_users, np.int64)
  first_UxI = _draw_in(rng, weight_N, everything, np.zeros((config.num_users, INTERESTS), np.int64))
  interests_UxI = catalogue.category_N[first_UxI]
  current_U = whole_U.copy()

  for step in range(sorted_U[0]):
    active = np.searchsorted(-sorted_U, -step, side='left')  # users with lengths > step
    rows = np.arange(active)
    moves = rng.random(active) < DRIFT
    current_U[:active] = np.where(moves, rng.integers(0, INTERESTS, active), current_U[:active])
    # In half of the moves, the category of the last item replaces the new interest.
    if step:
      adopted = rows[moves & (rng.random(active) < 0.5)]
      interests_UxI[adopted, current_U[adopted]] = catalogue.category_N[items_UxT[adopted, step - 1]]
    pending = rows
    for _ in range(TRIES):
      drawn = _next_items(
        rng, config.habit, catalogue, items_UxT[pending, :step], interests_UxI[pending, current_U[pending]]
      )
      items_UxT[pending, step] = drawn
      pending = pending[(items_UxT[pending, :step] == drawn[:, None]).any(axis=1)]
    items_UxT[pending, step] = _draw_in(rng, weight_N, everything, whole_U[: len(pending)])

  unsorted_UxT = np.empty_like(items_UxT)
  unsorted_UxT[order_U] = items_UxT
  return unsorted_UxT[unsorted_UxT >= 0], ragged.offsets(lengths_U)


def _next_items(
  rng: np.random.Generator, habit: float, catalogue: _Catalogue, history_UxT: np.ndarray, interest_U: np.ndarray
) -> np.ndarray:
  """Draws each user's next item, int64 [U], given histories of equal length and the users' current interests."""
  by_interest_U = _draw_in(rng, catalogue.cumulative_weight_N, catalogue.category_bounds_C, interest_U)
  if not history_UxT.shape[1]:
    return by_interest_U
  count = len(interest_U)
  last_U = history_UxT[:, -1]
  earlier_U = history_UxT[:, -2] if history_UxT.shape[1] > 1 else last_U
  complement_U = catalogue.complements_PxF[catalogue.type_N[last_U], _likeliest_first(rng, count, COMPLEMENTS)]
  favourite_U = _likeliest_first(rng, count, FAVOURITES)
  share = np.cumsum([COLLECTION_HABIT, FAVOURITE_HABIT, COMPLEMENT_HABIT, EARLIER_HABIT])
  kind_U = np.searchsorted(share * habit, rng.random(count), side='right')
  return np.select(
    [kind_U == 0, kind_U == 1, kind_U == 2, kind_U == 3],
    [
      catalogue.next_N[last_U],
      catalogue.favourites_NxF[last_U, favourite_U],
      _draw_in(rng, catalogue.cumulative_weight_N, catalogue.type_bounds_P, complement_U),
      catalogue.favourites_NxF[earlier_U, favourite_U],
    ],
    by_interest_U,
  )


def _texts(rng: np.random.Generator, catalogue: _Catalogue) -> list[dict[str, str]]:
  picks_NxK = rng.integers(0, 2**31, (len(catalogue.type_N), 8)).tolist()
  used_titles: dict[str, int] = {}
  texts = []
  for type_, brand, collection, picks in zip(
    catalogue.type_N.tolist(), catalogue.brand_N.tolist(), catalogue.collection_N.tolist(), picks_NxK
  ):
    shelf = catalogue.shelves[type_]
    choices = (shelf.materials, shelf.uses, words.COLOURS, words.SIZES, words.OPENINGS, words.SENTENCES, words.CLOSINGS)
    material, use, colour, size, opening, sentence, closing = (
      options[pick % len(options)] for options, pick in zip(choices, picks)
    )
    collection_name = words.COLLECTIONS[collection % len(words.COLLECTIONS)]
    brand_name = catalogue.brands[brand]
    title = f'{brand_name} {collection_name} {shelf.noun.capitalize()}, {material}, {size}, {colour}'
    used_titles[title] = used_titles.get(title, 0) + 1
    if used_titles[title] > 1:
      title = f'{title}, edition {used_titles[title]}'
    first, second = shelf.features[::-1] if picks[7] % 2 else shelf.features
    about = dict(
      noun=shelf.noun,
      material=material,
      use=use,
      first=first,
      second=second,
      collection=collection_name,
      brand=brand_name,
    )
    texts.append(
      {
        'title': title,
        'brand': brand_name,
        'categories': CATEGORY_SEPARATOR.join((shelf.department, shelf.category, shelf.noun.capitalize())),
        'description': ' '.join(part.format(**about) for part in (opening, sentence, closing)),
      }
    )
  return texts
