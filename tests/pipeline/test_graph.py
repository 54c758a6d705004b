from letter_jax.pipeline.graph import Graph
from tests.small_data import config_with


def test_the_title_of_the_data_concerns_the_report_alone():
  config = config_with({'data.title': 'Our shop'})
  assert [stage.name for stage in Graph(config) if 'data.title' in stage.settings_of(config)] == ['report']
