import io
import json

from tqdm import tqdm

from letter_jax.training.metric_writer import MetricWriter


def lines_of(directory):
  return [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]


def test_a_line_a_write(tmp_path, capsys):
  writer = MetricWriter(tmp_path / 'run', 'generator', 0, tqdm(disable=True))
  writer.write(10, 0.5, 'train', {'loss': 1.25, 'examples_per_second': 1234.5678})
  expected = [{'step': 10, 'epoch': 0.5, 'kind': 'train', 'loss': 1.25, 'examples_per_second': 1234.5678}]
  assert lines_of(tmp_path / 'run') == expected  # there before anything is closed
  writer.write(20, 1.0, 'validation', {'ndcg@10': 0.125})
  writer.close()
  assert lines_of(tmp_path / 'run')[1:] == [{'step': 20, 'epoch': 1.0, 'kind': 'validation', 'ndcg@10': 0.125}]
  shown = capsys.readouterr().out.splitlines()
  assert len(shown) == 2
  assert ' '.join(shown[0].split()) == 'generator train epoch 0.50 step 10 loss 1.2500 1,235 examples/s'
  assert ' '.join(shown[1].split()) == 'generator validation epoch 1.00 step 20 NDCG@10 0.1250'
  events = list((tmp_path / 'run' / 'tensorboard').iterdir())
  content = b''.join(path.read_bytes() for path in events)
  assert b'train/loss' in content and b'validation/ndcg_10' in content


def test_what_was_logged_past_the_resumed_step_is_dropped(tmp_path):
  writer = MetricWriter(tmp_path, 'generator', 0, tqdm(disable=True))
  for step in (1, 2, 3, 4):
    writer.write(step, step / 2, 'train', {'loss': 1 / step})
  writer.close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 5, "epo')  # killed while writing
  writer = MetricWriter(tmp_path, 'generator', 2, tqdm(disable=True))
  writer.write(3, 1.5, 'train', {'loss': 7.0})
  writer.close()
  assert [(line['step'], line['loss']) for line in lines_of(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 7.0)]


def test_a_training_from_the_start_drops_all(tmp_path):
  for value in (1.0, 2.0):
    writer = MetricWriter(tmp_path, 'generator', 0, tqdm(disable=True))
    writer.write(1, 1.0, 'train', {'loss': value})
    writer.close()
  assert [line['loss'] for line in lines_of(tmp_path)] == [2.0]


def test_on_a_terminal_the_bar_says_how_a_training_goes(tmp_path, capsys):
  with tqdm(total=9, file=io.StringIO()) as bar:
    writer = MetricWriter(tmp_path, 'generator', 0, bar)
    writer.write(1, 1.0, 'train', {'loss': 1.5, 'codebook_1': 0.25, 'examples_per_second': 7.0})
    assert bar.postfix == 'loss 1.5000'
    writer.write(1, 1.0, 'validation', {'recall@5': 0.1, 'recall@10': 0.25, 'ndcg@10': 0.125})
    writer.close()
  said = ' '.join(capsys.readouterr().out.split())
  assert said == 'generator validation epoch 1.00 step 1 Recall@10 0.2500 NDCG@10 0.1250'
