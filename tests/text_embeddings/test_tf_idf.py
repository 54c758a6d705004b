import random
import subprocess
import sys
import warnings

import numpy as np
import pytest

from letter_jax.configuration import SyntheticConfig, TextEmbeddingsConfig
from letter_jax.data.synthetic import synthesize
from letter_jax.system.errors import InputError
from letter_jax.text_embeddings.tf_idf import TextProjection, embed_texts


def item(title='', brand='', categories='', description=''):
  return {'title': title, 'brand': brand, 'categories': categories, 'description': description}


def rows_of(texts, config, seed):
  return embed_texts(texts, config, seed)[0]


@pytest.fixture(scope='module')
def store():
  return synthesize(SyntheticConfig(num_users=10, num_items=600), seed=3)


def test_neighbours_are_items_of_the_same_kind(store):
  rows_NxD = rows_of(store.texts, TextEmbeddingsConfig(dim=64), seed=0)
  assert rows_NxD.shape == (600, 64) and rows_NxD.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(rows_NxD, axis=1), 1, atol=1e-5)
  similarity_NxN = rows_NxD @ rows_NxD.T
  np.fill_diagonal(similarity_NxN, -1)
  nearest_N = similarity_NxN.argmax(axis=1)
  category_N = np.array([text['categories'].rpartition(' > ')[0] for text in store.texts])
  assert (category_N[nearest_N] == category_N).mean() > 0.95


# (between parts of a title, kinds, attributes)
SCRIPTS = {
  'Chinese': ('', '手机壳 跑步鞋 咖啡杯 台灯 绿茶 雨伞', '红色 蓝色 黑色 新款 大号 便携 儿童'),
  'Japanese': (
    '',
    'コーヒーメーカー 運動靴 お茶碗 掃除機 がま口財布 歯ブラシ',
    '赤い 青い 黒の 新しい 大きな 軽量 子供用',
  ),
  'Thai': ('', 'กาแฟคั่วบด รองเท้าวิ่ง เคสมือถือ โคมไฟ ชาเขียว กระเป๋าเป้', 'สีแดง สีน้ำเงิน สีดำ รุ่นใหม่ ขนาดใหญ่ พกพา ผู้ชาย'),
  'Khmer': ('', 'កាហ្វេ ស្បែកជើងរត់ ស្រោមទូរស័ព្ទ ចង្កៀង តែបៃតង ឆ័ត្រ', 'ពណ៌ក្រហម ពណ៌ខៀវ ថ្មី ធំ ស្រាល បុរស នារី'),
  'Lao': ('', 'ກາເຟ ເກີບແລ່ນ ເຄສໂທລະສັບ ໂຄມໄຟ ຊາຂຽວ ຄັນຮົ່ມ', 'ສີແດງ ສີຟ້າ ສີດຳ ໃໝ່ ໃຫຍ່ ເບົາ ແມ່ຍິງ'),
  'Burmese': ('', 'ကော်ဖီ အပြေးဖိနပ် ဖုန်းကာဗာ စားပွဲမီး လက်ဖက်စိမ်း သွားတိုက်တံ', 'အသစ် အကြီး ပေါ့ပါး အနီ အပြာ အနက် ကလေးသုံး'),
  'emoji': ('', '🍕 👟 📱 💡 🍵 👩‍💻', '🔴 🔵 ⚫ ✨ 🎁 💎 🧒🏽'),
  'Vietnamese': (' ', 'máy cân bút ấm thẻ bàn', 'đỏ xanh đen mới lớn nhỏ nữ'),
  'Arabic': (' ', 'قهوة حذاء غطاء مصباح شاي حقيبة', 'أحمر أزرق أسود جديد كبير خفيف فاخر'),
  'Hindi': (' ', 'कॉफ़ी जूते कवर लैंप चाय छाता', 'लाल नीला काला नया बड़ा हल्का बढ़िया'),
  'Korean': (' ', '책 운동화 케이스 조명 녹차 칫솔', '빨간 파란 검은 새로운 대형 가벼운 고급'),
  'mixed': (' ', '咖啡杯 跑步鞋 phone灯 絵本book お茶 กาแฟ', 'red blue 新款 large 軽量 พกพา kids'),
}


def titles_of(script, count):
  """Titles of a kind and two attributes each, and their kinds."""
  between, kinds, attributes = SCRIPTS[script]
  draw = random.Random(0)
  titles, kind_N = [], []
  for _ in range(count):
    kind = draw.randrange(6)
    parts = [*draw.sample(attributes.split(), 2), kinds.split()[kind]]
    draw.shuffle(parts)
    titles.append(item(between.join(parts)))
    kind_N.append(kind)
  return titles, np.array(kind_N)


def assert_kinds_are_apart(rows_NxD, kind_N):
  assert rows_NxD.any(axis=1).all()
  similarity_NxN = rows_NxD @ rows_NxD.T
  np.fill_diagonal(similarity_NxN, np.nan)
  same_NxN = kind_N[:, None] == kind_N
  assert np.nanmean(similarity_NxN[same_NxN]) > 2 * np.nanmean(similarity_NxN[~same_NxN]) + 0.1
  assert (kind_N[np.nanargmax(similarity_NxN, axis=1)] == kind_N).mean() > 0.8


@pytest.mark.parametrize('script', SCRIPTS)
def test_items_of_a_kind_are_near_in_every_script(script):
  titles, kind_N = titles_of(script, 60)
  assert_kinds_are_apart(rows_of(titles, TextEmbeddingsConfig(), seed=0), kind_N)


def test_scripts_that_few_items_have_keep_their_kinds_beside_many_english_items(store):
  texts, where = list(store.texts), {}
  for script in sorted(SCRIPTS.keys() - {'Vietnamese'}):  # it has that of English
    titles, kind_N = titles_of(script, 20)
    where[script] = (slice(len(texts), len(texts) + 20), kind_N)
    texts += titles
  rows_NxD = rows_of(texts, TextEmbeddingsConfig(dim=200), seed=0)
  for of_script, kind_N in where.values():
    assert_kinds_are_apart(rows_NxD[of_script], kind_N)


def test_a_limited_vocabulary_has_terms_of_each_script(store):
  titles, kind_N = titles_of('Thai', 40)
  config = TextEmbeddingsConfig(dim=100, max_features=500)
  assert_kinds_are_apart(rows_of([*store.texts, *titles], config, seed=0)[600:], kind_N)


def test_stop_words_are_those_of_english_texts():
  texts = [item('kettle in the box'), item('kettle box'), item('Bill und Mine'), item('Fire und Mine')]
  rows_NxD = rows_of(texts, TextEmbeddingsConfig(), seed=0)
  np.testing.assert_allclose(rows_NxD[0] @ rows_NxD[1], 1, atol=1e-5)
  assert rows_NxD[2] @ rows_NxD[3] < 0.9


def test_items_whose_text_gives_nothing_are_counted(capsys):
  rows_of(
    [item('red apple'), item(), item('红苹果'), item('the'), item('★'), item('blue apple')], TextEmbeddingsConfig(), 0
  )
  (line,) = capsys.readouterr().out.splitlines()
  assert 'the texts of 3 of 6 items give no term (1 have no text)' in line and 'config.text_embeddings.model' in line
  rows_of([item('red apple'), item('红苹果')], TextEmbeddingsConfig(), seed=0)
  assert capsys.readouterr().out == ''


def test_the_same_seed_gives_the_same_rows(store):
  first, again = (rows_of(store.texts, TextEmbeddingsConfig(dim=32), seed=5) for _ in range(2))
  np.testing.assert_array_equal(first, again)


def test_every_field_counts():
  fields = ('title', 'brand', 'categories', 'description')
  for field in fields:
    rows_NxD = rows_of(
      [item(**{field: 'copper kettle'}), item(**{field: 'copper kettle'}), item(**{field: 'garden hose'})],
      TextEmbeddingsConfig(),
      seed=0,
    )
    np.testing.assert_allclose(rows_NxD @ rows_NxD[0], [1, 1, 0], atol=1e-5)


def test_title_weighs_more_than_description():
  rows_NxD = rows_of([item('kettle', description='hose'), item('kettle'), item('hose')], TextEmbeddingsConfig(), seed=0)
  assert rows_NxD[0] @ rows_NxD[1] > rows_NxD[0] @ rows_NxD[2] + 0.1


def test_items_without_text_get_rows_of_zeros_and_small_catalogues_fewer_dimensions():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    rows_NxD = rows_of(
      [item('red apple'), item(), item('blue apple'), item('the'), item('pear tree')],
      TextEmbeddingsConfig(dim=384),
      seed=0,
    )
    same_NxD = rows_of([item('red apple')] * 12, TextEmbeddingsConfig(dim=384), seed=0)
  assert rows_NxD.shape == (5, 5) and np.isfinite(rows_NxD).all()
  np.testing.assert_allclose(np.linalg.norm(rows_NxD, axis=1), [1, 0, 1, 0, 1], atol=1e-5)
  assert 0.1 < rows_NxD[0] @ rows_NxD[2] < 0.9 and abs(rows_NxD[0] @ rows_NxD[4]) < 1e-5
  assert same_NxD.shape == (12, 2)
  np.testing.assert_allclose(same_NxD @ same_NxD.T, 1, atol=1e-5)


@pytest.mark.parametrize('max_features, words', [(2, 2), (3, 3), (50, 4)])
def test_vocabulary_is_limited(max_features, words):
  texts = [item(title) for title in ('red apple', 'red pear', 'apple pear', 'plum red', 'plum', 'apple')]
  assert rows_of(texts, TextEmbeddingsConfig(max_features=max_features), seed=0).shape == (6, words)


@pytest.mark.parametrize('texts', [None, (), (item(), item()), (item('the'), item('a I'))])
def test_a_catalogue_without_words_is_refused(texts):
  with pytest.raises(InputError, match='config.text_embeddings.path'):
    rows_of(texts, TextEmbeddingsConfig(), seed=0)


def test_importing_the_module_does_not_import_scikit_learn():
  code = 'import sys, letter_jax.text_embeddings.tf_idf; sys.exit("sklearn" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


@pytest.mark.parametrize('script', SCRIPTS)
def test_the_projection_embeds_later_items_by_the_same_rules(script, tmp_path):
  titles, kind_N = titles_of(script, 60)
  rows_NxD, projection = embed_texts(titles[:40], TextEmbeddingsConfig(), seed=0)
  projection.write(tmp_path / 'tf_idf.npz')
  later_NxD = TextProjection.read(tmp_path / 'tf_idf.npz').rows(titles)
  np.testing.assert_allclose(later_NxD[:40], rows_NxD, atol=1e-3)
  nearest_M = (later_NxD[40:] @ rows_NxD.T).argmax(axis=1)
  assert (kind_N[nearest_M] == kind_N[40:]).mean() > 0.8


def test_the_projection_embeds_items_in_the_space_of_the_fitted_catalogue(store, tmp_path):
  config = TextEmbeddingsConfig(dim=64)
  rows_NxD, projection = embed_texts(store.texts, config, seed=0)
  projection.write(tmp_path / 'tf_idf.npz')
  again = TextProjection.read(tmp_path / 'tf_idf.npz')
  later_NxD = again.rows(store.texts)
  assert later_NxD.dtype == np.float32 and (np.sum(later_NxD * rows_NxD, axis=1) > 0.995).all()
  np.testing.assert_array_equal(again.rows([item('qwertyuiop'), item(), item('गरम')]), np.zeros((3, 64)))
  (tmp_path / 'tf_idf.npz').write_bytes(b'PK')
  with pytest.raises(InputError, match='tf_idf.npz cannot be read'):
    TextProjection.read(tmp_path / 'tf_idf.npz')
