from letter_jax.configuration import Config
from letter_jax.pipeline import stages
from letter_jax.system.errors import InputError


class WithoutPartner:
  def partner(self):
    raise InputError('no checkpoint here')


def test_an_evaluation_does_without_the_lists_of_a_sasrec_that_is_gone(capsys):
  assert stages._sasrec_lists(Config(), WithoutPartner(), None) is None
  assert capsys.readouterr().out == 'evaluate: no lists of SASRec alone: no checkpoint here\n'
