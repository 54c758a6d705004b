"""SIGTERM while a training is watched, and around it; of several processes, whose call JAX agrees on."""

import os
import signal
import threading

import pytest
from jax.experimental import multihost_utils

from letter_jax.system import processes
from letter_jax.training.preemption import PreemptionWatch


@pytest.fixture
def handled():
  """The signals that reach the handler in place before the watch."""
  signals = []
  previous = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
  yield signals
  signal.signal(signal.SIGTERM, previous)


def test_sigterm_is_noted_instead_of_handled(handled):
  with PreemptionWatch() as watch:
    assert not watch.requested()
    os.kill(os.getpid(), signal.SIGTERM)
    assert watch.requested() and watch.requested()
  assert handled == []


def test_a_terminal_that_goes_away_is_noted_too_unless_that_is_ignored():
  previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with PreemptionWatch() as watch:
      os.kill(os.getpid(), signal.SIGHUP)
      assert not watch.requested()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with PreemptionWatch() as watch:
      os.kill(os.getpid(), signal.SIGHUP)
      assert watch.requested()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
  finally:
    signal.signal(signal.SIGHUP, previous)


def test_the_handler_is_restored_even_after_an_exception(handled):
  with pytest.raises(RuntimeError), PreemptionWatch():
    raise RuntimeError
  os.kill(os.getpid(), signal.SIGTERM)
  assert handled == [signal.SIGTERM]


def test_whoever_hears_of_a_noted_signal_late_does_not_find_the_handler_of_before(handled):
  before = signal.getsignal(signal.SIGTERM)
  with PreemptionWatch():
    os.kill(os.getpid(), signal.SIGTERM)
  assert signal.getsignal(signal.SIGTERM) is not before
  os.kill(os.getpid(), signal.SIGTERM)
  assert handled == [signal.SIGTERM]


def test_every_watch_starts_without_a_request(handled):
  watch = PreemptionWatch()
  for _ in range(2):
    with watch:
      assert not watch.requested()
      os.kill(os.getpid(), signal.SIGTERM)
      assert watch.requested()


def test_another_thread_than_the_main_one_handles_no_signals(handled):
  handlers, requests = [], []

  def watched():
    with PreemptionWatch() as watch:
      handlers.append(signal.getsignal(signal.SIGTERM))
      requests.append(watch.requested())

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=watched)
  thread.start()
  thread.join()
  assert handlers == [before] and requests == [False]


def test_several_processes_number_their_calls_through_all_trainings(handled, monkeypatch):
  numbers = []

  def reached(number):
    numbers.append(number)
    return number == 4

  class IdleGroup(processes._Group):
    def _watch(self):
      pass

  monkeypatch.setattr(multihost_utils, 'reached_preemption_sync_point', reached)
  monkeypatch.setattr(processes, '_group', IdleGroup(client=None, index=1, count=2))
  answers = []
  for _ in range(2):
    with PreemptionWatch() as watch:
      answers += [watch.requested() for _ in range(3)]
      os.kill(os.getpid(), signal.SIGTERM)
  assert numbers == [0, 1, 2, 3, 4, 5] and answers == [False] * 4 + [True, False]
  assert handled == [signal.SIGTERM] * 2  # JAX listens itself
