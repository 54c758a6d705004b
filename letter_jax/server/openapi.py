"""The description of the server's routes (OpenAPI 3.1), and the page that shows it without anything from outside."""

import json
from typing import Any

import jinja2

import letter_jax
from letter_jax.server.asked import Limits
from letter_jax.serving.recommender import Recommender

_ITEM = {'type': ['string', 'integer'], 'description': 'raw id of an item'}
_ITEMS = {'type': 'array', 'items': _ITEM}
_PAGE = jinja2.Environment(loader=jinja2.PackageLoader('letter_jax.server', ''), autoescape=True)


def description(recommender: Recommender | None, limits: Limits, reload: bool) -> dict[str, Any]:
  """The routes.

  Args:
    recommender: gives the number of beams and the ids of the examples; None where none is loaded yet.
    limits: of a request.
    reload: whether there is a route that reloads the model.
  """
  ids = list(recommender.catalogue.raw_ids[:3]) if recommender else ['A', 'B', 'C']
  beam = recommender.beam if recommender else 20
  history = {**_ITEMS, 'maxItems': limits.history, 'description': 'items of the user, the oldest first'}
  user = {'type': ['string', 'integer', 'null'], 'description': 'name of the user, returned as it is'}
  options = {
    'k': {'type': 'integer', 'minimum': 1, 'maximum': beam, 'default': min(10, beam), 'description': 'items per user'},
    'exclude_history': {
      'type': ['boolean', 'null'],
      'description': 'whether items of the history are left out; by default what was better on validation',
    },
    'allow': {**_ITEMS, 'description': 'the only items that may be recommended'},
    'deny': {**_ITEMS, 'description': 'items that may not be recommended; unknown ones are ignored'},
    'repeat': {**_ITEMS, 'description': 'the only items of the history that may be recommended again'},
    'skip_unknown': {'type': 'boolean', 'default': False, 'description': 'ignore unknown items of "allow"'},
  }
  one = {'type': 'object', 'required': ['history'], 'properties': {'user': user, 'history': history}}
  many = {'type': 'array', 'maxItems': limits.users, 'items': one}
  recommendation = {
    'type': 'object',
    'properties': {
      'id': {'type': 'string', 'description': 'raw id of the item'},
      'title': {'type': 'string'},
      'score': {'type': 'number', 'description': 'log-likelihood, larger is better'},
      'semantic_id': {'type': 'string'},
      'item': {'type': 'integer', 'description': 'row of the item in this model; differs in the next one'},
      'cold': {'type': 'boolean', 'description': 'true for an item newer than the training'},
    },
  }
  answer = {
    'type': 'object',
    'properties': {
      'user': user,
      'skipped': {'type': 'integer', 'description': 'unknown items of the history'},
      'from': {'const': 'popularity', 'description': 'present where no item of the history is known'},
      'reason': {'type': 'string'},
      'recommendations': {'type': 'array', 'items': recommendation},
    },
  }
  errors = {
    '400': _error('The request is wrong; the text says what, where, and what was expected.'),
    '413': _error(f'The body has more than {limits.body_bytes:,} bytes.'),
    '503': _error('The model is being loaded, or too many users wait; the header Retry-After says when to ask again.'),
  }
  paths: dict[str, Any] = {
    '/recommend': {
      'post': {
        'summary': 'The best next items of one user, or of several',
        'requestBody': {
          'required': True,
          'content': {
            'application/json': {
              'schema': {
                'oneOf': [
                  {**one, 'title': 'one user', 'properties': {**one['properties'], **options}},  # type: ignore[dict-item]
                  {
                    'type': 'object',
                    'title': 'several users',
                    'required': ['users'],
                    'properties': {'users': many, **options},
                  },
                ]
              },
              'example': {'user': 'somebody', 'history': ids, 'k': min(5, beam)},
            }
          },
        },
        'responses': {
          '200': _content('The answer to one user, or {"users": [answers]} in their order.', answer),
          **errors,
        },
      }
    },
    '/healthz': {'get': {'summary': 'The process answers', 'responses': {'200': _content('It does.', {})}}},
    '/readyz': {
      'get': {
        'summary': 'Recommendations are answered at once',
        'responses': {'200': _content('They are.', {}), '503': _error('The model is being loaded.')},
      }
    },
    '/metrics': {
      'get': {
        'summary': 'Counters and histograms, in the text format of Prometheus',
        'responses': {'200': {'description': 'The metrics.'}},
      }
    },
  }
  if reload:
    paths['/-/reload'] = {
      'post': {
        'summary': 'Loads the model anew, and lets it answer once it is ready',
        'security': [{'admin': []}],
        'responses': {
          '200': _content('The new model answers.', {}),
          '401': _error('The token is not that of --admin_token_file.'),
          '409': _error('The model cannot be loaded; the one from before keeps answering.'),
        },
      }
    }
  return {
    'openapi': '3.1.0',
    'info': {'title': 'letter_jax', 'version': letter_jax.__version__, 'description': 'Recommendations by LETTER.'},
    'paths': paths,
    **({'components': {'securitySchemes': {'admin': {'type': 'http', 'scheme': 'bearer'}}}} if reload else {}),
  }


def page(described: dict[str, Any]) -> str:
  """The description as a page of HTML."""
  routes = [
    {
      'method': method.upper(),
      'path': path,
      'summary': operation['summary'],
      'example': _example(operation),
      'schema': _schema(operation),
      'responses': {status: response['description'] for status, response in operation['responses'].items()},
    }
    for path, operations in described['paths'].items()
    for method, operation in operations.items()
  ]
  return _PAGE.get_template('docs.html').render(info=described['info'], routes=routes)


def _example(operation: dict[str, Any]) -> str:
  if 'requestBody' not in operation:
    return ''
  return json.dumps(operation['requestBody']['content']['application/json']['example'], ensure_ascii=False)


def _schema(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """The properties of each form of the body, by its title."""
  if 'requestBody' not in operation:
    return {}
  forms = operation['requestBody']['content']['application/json']['schema']['oneOf']
  return {form['title']: form['properties'] for form in forms}


def _content(meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
  return {'description': meaning, 'content': {'application/json': {'schema': {'type': 'object', **schema}}}}


def _error(meaning: str) -> dict[str, Any]:
  return _content(meaning, {'properties': {'error': {'type': 'string'}}})
