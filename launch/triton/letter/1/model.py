"""An exported folder behind NVIDIA Triton's Python backend.

Copy the files of WORKDIR/export next to this one. A request is a batch of lines as `recommend.py` takes them, JSON in
the input LINE; the output ANSWER has the answer to each. Triton gathers the lines of several requests.
"""

import importlib.util
import json
import pathlib

import numpy as np
import triton_python_backend_utils as pb_utils

K = 10


class TritonPythonModel:
  """Recommends for the lines of requests."""

  def initialize(self, args: dict) -> None:
    path = pathlib.Path(__file__).parent / 'recommend.py'
    spec = importlib.util.spec_from_file_location('exported_recommend', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    self._recommender = module.Recommender()
    self._recommender.warm_up()

  def execute(self, requests: list) -> list:
    lines_of = [pb_utils.get_input_tensor_by_name(request, 'LINE').as_numpy().ravel() for request in requests]
    numbered = ((number, line) for lines in lines_of for number, line in enumerate(lines, 1))
    answers = [json.dumps(answer).encode() for answer in self._recommender.answers(numbered, K)]
    responses = []
    for lines in lines_of:
      of_request, answers = answers[: len(lines)], answers[len(lines) :]
      tensor = pb_utils.Tensor('ANSWER', np.array(of_request, object).reshape(-1, 1))
      responses.append(pb_utils.InferenceResponse(output_tensors=[tensor]))
    return responses
