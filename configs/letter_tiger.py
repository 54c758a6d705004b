"""LETTER-TIGER on data in LETTER's format, or on two CSV files of your own (`letter_tiger:csv`).

    python -m letter_jax.main --config=letter_tiger:scientific --config.data.path=FOLDER --workdir=DIR

The generator's encoder has one position per item and is trained by users, and it is evaluated alone and together with
its partners, SASRec and the counts of what is bought together. Measured with seed 42 on one core of an Intel Xeon
(AVX-512), shared with other work; test Recall@10 / NDCG@10:

    beauty, official semantic IDs      with the history in the ranking    out of it
      with both partners               .0910 / .0507                      .1000 / .0597
      LETTER-TIGER                     .0669 / .0351                      .0732 / .0411
      SASRec                           .0828 / .0416                      .0910 / .0547
      bought together                  .0711 / .0396                      .0775 / .0461
        SASRec 13 min, generator 13.5 min (best validation result at its last epoch), on an AMD EPYC (AVX-512)

    instruments, official semantic IDs
      with both partners               .1245 / .0925                      .1308 / .0982
      LETTER-TIGER                     .1132 / .0839                      .1173 / .0883
      SASRec                           .1055 / .0740                      .1123 / .0827
      bought together                  .1139 / .0858                      .1177 / .0921
        SASRec 6 min, generator 13 min (best validation result at epoch 12 of 16), on an AMD EPYC (AVX-512)

    scientific, everything made here
      with both partners               .1140 / .0752                      .1229 / .0839
      LETTER-TIGER                     .0877 / .0558                      .0955 / .0630
      SASRec                           .0938 / .0643                      .0992 / .0705
      bought together                  .1038 / .0653                      .1104 / .0771
        tokenizer 7 min, generator 7 min (best validation result at its last epoch), on an AMD EPYC (AVX-512)

The paper's data sets from the owners' raw files instead of LETTER's folder:

    beauty   --config.data.source=amazon2014: category Beauty of 2014, reviews_Beauty_5.json.gz and meta_Beauty.json.gz;
             a user's reviews in time order, 5-core; 22,363 users, 12,101 items, 198,502 interactions
    yelp     reviews of 2019 (from 2019-01-01 until 2019-12-31, 0:00), 5-core, of the release of early 2020 that covers
             the year: 30,431 users, 20,033 items, 316,354 interactions in the paper. Download the files by hand
             (--config.data.path=FOLDER); later releases lack reviews that were withdrawn, so counts differ slightly

docs/results.md lists the differences from the paper's generator and the effect of each; `letter_tiger_paper.py` is the
paper's generator.
"""

from letter_jax.configuration import default_config
from letter_jax.system.errors import InputError

DATA_SETS = ('scientific', 'beauty', 'instruments', 'yelp', 'csv')


def get_config(name: str = ''):
  if name not in DATA_SETS:
    raise InputError(f'--config=letter_tiger:{name} is not valid; expected {", ".join(DATA_SETS)} after the colon')
  config = default_config()
  config.data.source = 'letter'
  config.data.name = name.capitalize()
  if name == 'csv':
    config.data.source, config.data.name = 'csv', ''
  if name == 'yelp':
    config.data.source = 'yelp'
    config.data.preparation.since = '2019-01-01'
    config.data.preparation.until = '2019-12-31'
  if name == 'beauty':
    config.collaborative.model.dropout = 0.5  # with 0.2, SASRec has .0756 / .0415

  # 1.1M parameters, a quarter of the paper's T5; one position per item, so that one pass predicts all items of a user.
  generator = config.generator
  generator.model.encoder = 'items'
  generator.model.layers = 2
  generator.model.heads = 4
  generator.model.d_kv = 32
  generator.model.d_ff = 512
  generator.softmax = 'catalogue'
  generator.temperature = 1.0
  config.fusion.partners = ('sasrec', 'bought_together')

  training = generator.training
  training.epochs = 16
  training.evaluate_every_epochs = 2
  training.batch_size = 32  # users, about 180 items to predict
  training.learning_rate = 2.5e-2
  training.relative_updates = True
  training.weight_decay = 0.0
  training.warmup_fraction = 0.03
  training.gradient_clip = 1.0
  return config
