"""The export: a trained generator as files that can be used without this program.

FOLDER/search_PLATFORM.stablehlo   the whole search, by `jax.export`, for any number of users
FOLDER/arrays.safetensors          its first argument: weights, semantic IDs and trie
FOLDER/items.json                  raw ids, titles and semantic IDs; `beam`, `history_length`, `exclude_history`, first
                                   purchases
FOLDER/recommend.py                a script that recommends with these files (`exported_recommend.py`)
FOLDER/semantic_ids.csv            raw ids and codes; index.json has the codes in LETTER's format
FOLDER/hugging_face/               the generator for transformers
"""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export as jax_export
from safetensors.flax import save_file

from letter_jax.data.index_format import tokens_of
from letter_jax.decoding.candidates import Candidates
from letter_jax.decoding.fusion import Fusion
from letter_jax.decoding.user_search import Search
from letter_jax.semantic_ids.item_trie import ItemTrie, Paths
from letter_jax.serving import exported_recommend
from letter_jax.serving.catalogue import Catalogue
from letter_jax.serving.loaded_generator import LoadedGenerator
from letter_jax.sharding import compute_dtype_on
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

PLATFORMS = ('cpu', 'cuda', 'tpu')
HUGGING_FACE = 'hugging_face'  # folder
_OF_FUSION = ('generator', 'partners', 'weights')  # the names of the parameters of a fusion in arrays.safetensors

# (arrays, items_BxC, had_BxH, allowed_N) -> (items int32, scores float32 [B, beam])
ExportedSearch = Callable[[dict[str, jax.Array], jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def require_platforms(platforms: Sequence[str]) -> None:
  """Raises InputError unless `platforms` are some of PLATFORMS."""
  if not platforms or not set(platforms) <= set(PLATFORMS):
    raise InputError(f'--platforms={",".join(platforms)}; expected some of {",".join(PLATFORMS)}')


def export_search(
  folder: pathlib.Path,
  loaded: LoadedGenerator,
  catalogue: Catalogue,
  beam: int,
  platforms: Sequence[str],
  fusion: Mapping[str, Any] | None = None,
  exclude_history: bool = True,
) -> None:
  """Writes the search, its arrays, the items, and the script that reads them.

  Args:
    folder: where to write; of an earlier export it has nothing.
    loaded: the generator, over the IDs of `catalogue`.
    catalogue: the items.
    beam: items that the search returns for each user.
    platforms: some of PLATFORMS.
    fusion: `Workdir.read_fusion`, for the generator together with its partners; None for the generator alone.
    exclude_history: the default of the script: whether the items of a history are excluded.

  Raises:
    InputError: a partner cannot be read.
  """
  generator, trie = loaded.generator, catalogue.ids.host_trie
  paths = Paths.of(trie)
  params: Any = loaded.params
  if fusion:
    partners = {name: loaded.partner(name) for name in fusion['partners']}
    of_partners = {name: of_partner for name, (_, of_partner) in partners.items()}
    params = dict(zip(_OF_FUSION, (params, of_partners, np.array(fusion['weights'], np.float32))))
    width = loaded.fusion_width(fusion['candidates'])
  arrays = _arrays(params, catalogue.ids.codes_NxL, trie, paths)
  history_length, longest = loaded.config.data.history_length, generator.longest_history
  if longest is not None:
    history_length = min(history_length, longest)
  artifacts.write(folder / 'arrays.safetensors', lambda path: _write_arrays(path, arrays))
  for platform in platforms:
    dtype = compute_dtype_on(platform, generator.config.compute_dtype)
    for_platform = dataclasses.replace(
      generator,  # type: ignore[type-var]
      config=dataclasses.replace(generator.config, compute_dtype=dtype),
    )
    search = for_platform.search()
    lists = Fusion(search, tuple(scores for scores, _ in partners.values()), width) if fusion else search
    run = _self_contained(lists, trie, paths, beam, tuple(fusion['partners']) if fusion else ())
    exported = _export(run, arrays, len(catalogue), history_length, platform).serialize()
    artifacts.write(folder / f'search_{platform}.stablehlo', functools.partial(_write_bytes, content=exported))
  popular, scores = catalogue.newcomers.best(np.ones(len(catalogue), bool), len(catalogue))
  artifacts.write_json(
    folder / 'items.json',
    {
      'beam': beam,
      'history_length': history_length,
      'own_ids': catalogue.own_ids,
      'exclude_history': exclude_history,
      'first_purchases': {'items': popular.tolist(), 'scores': [round(score, 6) for score in scores.tolist()]},
      'items': [
        {'id': raw_id, 'title': title, 'semantic_id': catalogue.semantic_id(item)}
        for item, (raw_id, title) in enumerate(zip(catalogue.raw_ids, catalogue.titles))
      ],
    },
  )
  artifacts.write(folder / 'recommend.py', _copy_script)


def _write_bytes(path: pathlib.Path, content: bytes | bytearray) -> None:
  path.write_bytes(content)


def _copy_script(path: pathlib.Path) -> None:
  shutil.copyfile(exported_recommend.__file__, path)


def _write_arrays(path: pathlib.Path, arrays: dict[str, Any]) -> None:
  save_file({name: jnp.asarray(leaf) for name, leaf in arrays.items()}, path)


def export_hugging_face(folder: pathlib.Path, loaded: LoadedGenerator, catalogue: Catalogue) -> None:
  """Writes the generator for transformers, and `letter.json`, from which a server can build its own search.

  `letter.json` has the raw id and the tokens of each item, the softmax that the model was trained with, and entries of
  the generator, such as the wording of a prompt.
  """
  entries = loaded.generator.write_hugging_face(folder, loaded.trained)
  items = {str(item): tokens_of(codes) for item, codes in enumerate(loaded.ids.codes_NxL.tolist())}
  artifacts.write_json(
    folder / 'letter.json',
    {'softmax': loaded.config.generator.softmax, 'ids': list(catalogue.raw_ids), 'items': items, **entries},
  )


def _self_contained(
  search: Search | Fusion, trie: ItemTrie, paths: Paths, beam: int, partners: Sequence[str]
) -> ExportedSearch:
  """The search as a function of plain arrays: a program that calls it needs none of the types of this one.

  Args:
    search: the model's part, or that of several models.
    trie, paths: of the catalogue; only their static fields are used, the arrays are arguments of the result.
    beam: items for each user.
    partners: the names of the dense models of a fusion, in the order of their weights.
  """

  def run(
    arrays: dict[str, jax.Array], items_BxC: jax.Array, had_BxH: jax.Array, allowed_N: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    tree = traverse_util.unflatten_dict(arrays, sep='/')
    read_trie = _trie_of(tree['trie'], trie)
    read_paths = dataclasses.replace(paths, nodes_NxL=tree['nodes'], rank_N=tree.get('rank'))
    params = tree['params']
    if isinstance(search, Fusion):
      of_generator, of_partners, weights_P = (params[name] for name in _OF_FUSION)
      params = of_generator, tuple(of_partners[name] for name in partners), weights_P
    return search.items(
      beam, params, items_BxC, had_BxH, tree['codes'], read_trie, read_paths, Candidates.of(read_trie, allowed_N)
    )

  return run


def _export(
  run: ExportedSearch, arrays: dict[str, Any], num_items: int, history_length: int, platform: str
) -> jax_export.Exported:
  """`run` for one platform, with any number of users and of items that a user has had."""
  users, had = jax_export.symbolic_shape('users, had')
  return jax_export.export(jax.jit(run), platforms=[platform])(
    jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays),
    jax.ShapeDtypeStruct((users, history_length), np.int32),
    jax.ShapeDtypeStruct((users, had), np.int32),
    jax.ShapeDtypeStruct((num_items,), np.bool_),
  )


def _arrays(params: Any, codes_NxL: np.ndarray, trie: ItemTrie, paths: Paths) -> dict[str, Any]:
  """All arrays of a search by name, such as 'params/embedding' and 'trie/item'."""
  tree = {'params': params, 'codes': codes_NxL, 'nodes': paths.nodes_NxL, 'trie': _arrays_of(trie)}
  if paths.rank_N is not None:
    tree['rank'] = paths.rank_N
  return traverse_util.flatten_dict(tree, sep='/')


def _arrays_of(trie: ItemTrie) -> dict[str, Any]:
  """The arrays of a trie by name; `_trie_of` is the inverse."""
  levels = {
    f'{name}_{level}': array
    for name in ('code', 'first_edge')
    for level, array in enumerate(getattr(trie, name))
    if array is not None
  }
  return {'item': trie.item, **levels, **({} if trie.first_item is None else {'first_item': trie.first_item})}


def _trie_of(arrays: dict[str, jax.Array], like: ItemTrie) -> ItemTrie:
  """The trie with these arrays and the static fields of `like`."""
  return dataclasses.replace(
    like,
    item=arrays['item'],
    first_item=arrays.get('first_item'),
    code=tuple(arrays[f'code_{level}'] for level in range(like.levels)),
    first_edge=tuple(arrays.get(f'first_edge_{level}') for level in range(like.levels)),
  )
