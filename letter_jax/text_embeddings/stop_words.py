"""English stop words, for English texts alone: 'was' is none in German, nor is 'on' in Turkish."""

import functools
import re
from collections.abc import Set

# Frequent words, by which English texts are told from those in other languages. By line: English; German; French;
# Spanish and Portuguese; Italian and Romanian; Dutch; Danish, Norwegian and Swedish; Polish, Czech and Hungarian;
# Turkish, Indonesian, Malay and Tagalog. Left out is what English has, too, such as 'in' and 'die'.
_ENGLISH = """
all and any are as at be by can each for from has have if into is it its more not of only or other than that the their
these this to which will with without you your
"""
_OTHER_LANGUAGES = """
auf aus bei das dem den der ein eine einen im ist mit nach nicht oder sich sind und von wie zum zur
aux avec dans des du elle est et la le les leur ne par pas pour que qui sans ses sur une
como del el ella esta los para por que sem sin su sus uma
alla anche che cu dal della delle del di gli il la nel nella pentru sono una
aan als bij dat een en er het met naar niet om ook uit van voor zijn
att av det en er ett han inte jag og och om som til
dla egy jako jest na nem nie po przez
ang bir bu dan dari dengan ile ini itu mga pada untuk yang
"""
_ACCENTED_LATIN = re.compile('[ß-öø-ɏḀ-ỿ]')


def of_text(words: Set[str]) -> frozenset[str]:
  """The stop words of a text: the English ones, or none where more of its frequent words are of another language.

  Args:
    words: its words as written, in lower case. Those with accents are of another language.
  """
  accented = sum(_ACCENTED_LATIN.search(word) is not None for word in words if not word.isascii())
  of_others = len(words & _frequent(_OTHER_LANGUAGES)) + accented
  return english_stop_words() if of_others <= len(words & _frequent(_ENGLISH)) else frozenset()


@functools.cache
def _frequent(words: str) -> frozenset[str]:
  return frozenset(words.split())


@functools.cache
def english_stop_words() -> frozenset[str]:
  """Those of scikit-learn."""
  from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # slow to import

  return ENGLISH_STOP_WORDS
