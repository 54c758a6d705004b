# The server of letter_jax, for CPU by default:
#
#   docker build -t letter_jax .
#   docker run --read-only --tmpfs /tmp -v "$PWD/workdirs/quickstart:/model:ro" -v letter_cache:/cache -p 8080:8080 letter_jax
#
# For an accelerator: --build-arg PLATFORM=cuda13 or --build-arg PLATFORM=tpu. Versions are those of requirements.lock.
FROM python:3.11-slim

ARG PLATFORM=cpu

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache

WORKDIR /app
COPY requirements.txt requirements.lock pyproject.toml setup.py README.md LICENSE ./
COPY letter_jax letter_jax
COPY configs configs
RUN if [ "$PLATFORM" = cpu ]; then jax=jax; else jax="jax[$PLATFORM]"; fi \
    && pip install "$jax" '.[serve]' -c requirements.lock \
    && useradd --uid 10001 --no-create-home letter \
    && install -d -o letter /cache

# Compiled programs are kept in /cache: mount a volume there, and a new container is ready in seconds.
VOLUME /cache
USER 10001
WORKDIR /tmp
EXPOSE 8080
# The interpreter is all that is needed to ask: the image has no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["letter-jax", "--stage=serve", "--workdir=/model", "--host=0.0.0.0", "--port=8080"]
