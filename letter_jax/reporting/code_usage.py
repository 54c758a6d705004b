"""The parts of the report on the semantic IDs: which codes are used, and which items had to share or move.

Shapes: N items, L levels, K codes per level.
"""

import numpy as np

from letter_jax.reporting import figures, page
from letter_jax.reporting.finished import Finished
from letter_jax.reporting.page import Html
from letter_jax.tokenizer.diagnostics import diagnose, id_groups


def section(run: Finished) -> Html:
  codes_NxL, size = run.codes_NxL, run.ids['codebook_size']
  counts_LxK = np.stack([np.bincount(codes_N, minlength=size) for codes_N in codes_NxL.T])
  found = diagnose(codes_NxL, size)
  rows = []
  for level, counts_K in enumerate(counts_LxK):
    prefixes = np.bincount(id_groups(codes_NxL[:, : level + 1]))
    rows.append(
      (
        f'level {level + 1}',
        f'{found["codes_used"][level]} of {size}',
        int((counts_K == 0).sum()),
        f'{found["perplexity"][level]:.1f}',
        f'{counts_K.max():,} ({counts_K.max() / len(codes_NxL):.1%})',
        f'{len(prefixes):,}',
        f'{prefixes.max():,}',
      )
    )
  table = page.table(
    [
      '',
      'codes used',
      'dead codes',
      'perplexity',
      'items on the fullest code',
      'different prefixes',
      'items on the fullest prefix',
    ],
    rows,
    f'Of the semantic IDs in use, of {len(codes_NxL):,} items. Perplexity is the number of codes that would give the '
    f'same entropy if all were used alike; {size} is the most.',
  )
  plot = page.figure(
    figures.heat_map('usage', counts_LxK),
    'Items on each code',
    'bright: many; empty: a dead code; the scale is logarithmic',
  )
  return page.section(
    'codes',
    'Use of the codes',
    'How evenly each level spreads the items over its codes. Look for dead codes (capacity that is not used) and for '
    'one code that hoards items: what follows it must then tell all of them apart.',
    table,
    plot,
  )


def collisions(run: Finished) -> Html:
  return page.section(
    'collisions',
    'Collisions',
    'Items whose nearest codes were those of another item, and what was done about it. Many moved items at an early '
    'level, or a large increase of the error, mean that IDs say less about their items: more codes or levels help.',
    *(_given(run) if run.ids.get('source') == 'given' else _assigned(run)),
  )


def _given(run: Finished) -> list[Html]:
  return [
    page.paragraph(
      'The semantic IDs were given (config.semantic_ids.path), so nothing was moved here. '
      f'{run.ids["collision_rate"]:.2%} of the items are not the first with their ID; the most frequent ID has '
      f'{run.ids["largest_group"]:,} {_items(run.ids["largest_group"])}.'
    )
  ]


def _items(count: int) -> str:
  return 'item' if count == 1 else 'items'


def _assigned(run: Finished) -> list[Html]:
  ids, items = run.ids, run.ids['items']
  before = run.workdir.read_tokenizer_validation().get('collision_rate')
  share = lambda count: f'{count:,} ({count / items:.1%})'
  rows = [
    ('items', f'{items:,}'),
    ('shared their nearest ID with others', share(ids['collided'])),
    *([('collision rate of the nearest codes', f'{before:.4f}')] if before is not None else []),
    ('were moved to another ID', share(ids['moved'])),
    *(
      (f'first code that changed: level {level}', share(count)) for level, count in enumerate(ids['moved_at_level'], 1)
    ),
    ('squared error added by moving, mean', f'{ids["error_increase_mean"]:.4g}'),
    ('squared error added by moving, largest', f'{ids["error_increase_max"]:.4g}'),
    ('still share their ID', share(ids['colliding_after'])),
    ('items on the most frequent ID', f'{ids["largest_group"]:,}'),
    ('collision rate of the IDs in use', f'{ids["collision_rate"]:.4f}'),
  ]
  return [
    page.table(
      ['', 'value'],
      rows,
      f'As config.semantic_ids.collisions = {run.config.semantic_ids.collisions!r} says. The squared '
      'error is between the latent and the sum of its codes; less than 0 is added where another ID '
      'happens to be nearer than the greedy one.',
    )
  ]
