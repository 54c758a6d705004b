"""The sections of the report on the semantic IDs: which codes are used, and which items shared an ID or were moved.

Shapes: N items, L levels, K codes per level.
"""

import numpy as np
from markupsafe import Markup

from letter_jax.reporting import figures, page
from letter_jax.reporting.finished import Finished
from letter_jax.system.wording import counted
from letter_jax.tokenizer import drift
from letter_jax.tokenizer.diagnostics import diagnose, id_groups


def section(run: Finished) -> page.Section:
  """How many codes each level uses, and how evenly."""
  codes_NxL, codebook_size = run.codes_NxL, run.ids['codebook_size']
  counts_LxK = np.stack([np.bincount(codes_N, minlength=codebook_size) for codes_N in codes_NxL.T])
  diagnosis = diagnose(codes_NxL, codebook_size)
  rows = []
  for level, counts_K in enumerate(counts_LxK):
    prefix_sizes = np.bincount(id_groups(codes_NxL[:, : level + 1]))
    rows.append(
      (
        f'level {level + 1}',
        f'{diagnosis["codes_used"][level]} of {codebook_size}',
        int((counts_K == 0).sum()),
        f'{diagnosis["perplexity"][level]:.1f}',
        f'{counts_K.max():,} ({counts_K.max() / len(codes_NxL):.1%})',
        f'{len(prefix_sizes):,}',
        f'{prefix_sizes.max():,}',
      )
    )
  table = page.table(
    [
      '',
      'codes used',
      'dead codes',
      'perplexity',
      'items on the fullest code',
      'distinct prefixes',
      'items on the fullest prefix',
    ],
    rows,
    f'The semantic IDs in use, of {counted(len(codes_NxL), "item")}. Perplexity is the number of codes that would have '
    f'the same entropy if all were used equally often; it is at most {codebook_size}.',
  )
  plot = page.figure(
    figures.heat_map(counts_LxK), 'Items on each code', 'bright: many; empty: a dead code; logarithmic scale'
  )
  return page.Section(
    'codes',
    'Codes',
    'Use of the codes',
    'How evenly each level distributes the items over its codes. Look for dead codes (unused capacity) and for a code '
    'with very many items, which the later levels then have to tell apart.',
    [table, plot],
  )


def collisions_section(run: Finished) -> page.Section:
  """How many items had the same nearest codes, and how that was resolved."""
  return page.Section(
    'collisions',
    'Collisions',
    'Collisions',
    'Items whose nearest codes were those of another item, and how these collisions were resolved. If many items are '
    'moved at an early level, or the error grows a lot, IDs describe their items poorly: use more codes or levels.',
    [*_drift(run), _given(run) if run.ids.get('source') == 'given' else _assigned(run)],
  )


def _drift(run: Finished) -> list[Markup]:
  """What became of an earlier run's semantic IDs."""
  if drift.KEY not in run.ids:
    return []
  said = [line[0].upper() + line[1:] for line in drift.in_words(run.ids[drift.KEY])]
  return [page.paragraph(f'The tokenizer is that of an earlier run. {". ".join(said)}.')]


def _given(run: Finished) -> Markup:
  largest = run.ids['largest_group']
  return page.paragraph(
    'The semantic IDs were given (config.semantic_ids.path), so no item was moved. '
    f'{run.ids["collision_rate"]:.2%} of the items are not the first with their ID; the most frequent ID has '
    f'{counted(largest, "item")}.'
  )


def _assigned(run: Finished) -> Markup:
  ids, items = run.ids, run.ids['items']
  nearest_rate = run.workdir.read_tokenizer_validation().get('collision_rate')
  with_share = lambda count: f'{count:,} ({count / items:.1%})'
  rows = [
    ('items', f'{items:,}'),
    ('shared their nearest ID with others', with_share(ids['collided'])),
    *([('collision rate of the nearest codes', f'{nearest_rate:.4f}')] if nearest_rate is not None else []),
    ('moved to a different ID', with_share(ids['moved'])),
    *(
      (f'first changed code at level {level}', with_share(count))
      for level, count in enumerate(ids['moved_at_level'], 1)
    ),
    ('squared error added by moving, mean', f'{ids["error_increase_mean"]:.4g}'),
    ('squared error added by moving, largest', f'{ids["error_increase_max"]:.4g}'),
    ('still share their ID', with_share(ids['colliding_after'])),
    ('items on the most frequent ID', f'{ids["largest_group"]:,}'),
    ('collision rate of the IDs in use', f'{ids["collision_rate"]:.4f}'),
  ]
  return page.table(
    ['', 'value'],
    rows,
    f'Collisions were handled with config.semantic_ids.collisions = {run.config.semantic_ids.collisions!r}. The '
    'squared error is that of the latent and the sum of its codes. It can decrease, because the nearest codes are '
    'chosen greedily, level by level, and a different ID may be nearer.',
  )
