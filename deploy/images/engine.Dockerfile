# An engine on GPUs: vLLM's own image, Ray, and what builds Serve applications from a catalog. From the root of the repository:
#
#     docker build --file deploy/images/engine.Dockerfile --tag fovea/engine:VERSION .
#
# The same image is a Ray head, a Ray worker, and the process that compiles constraints. vLLM's image has its Python in /usr, and
# so is all that is added here: whoever starts a login shell, as KubeRay can be told to, finds `ray` there all the same.

FROM vllm/vllm-openai:v0.32.0
USER 0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Where a pod template has no probe of a Ray worker that serves, KubeRay's own is `wget`.
# Ubuntu drops a package's old version from its archive with each fix, so that a pinned one could soon not be installed.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*

# KubeRay's Job that cleans Redis up after a Ray cluster calls `python`, which not every release of vLLM's image has had.
RUN command -v python || ln -s "$(command -v python3)" /usr/local/bin/python

# torch asks for the name of the user it runs as. Newer Ubuntus have given 1000 to one of their own. A cluster that assigns users,
# as OpenShift does, has them in group 0, and with no name: what they write, kernels among it, is below HOME as well.
RUN { getent group 1000 || groupadd --gid 1000 fovea; } \
    && { getent passwd 1000 || useradd --uid 1000 --gid 1000 --no-create-home --home-dir /home/fovea --shell /bin/bash fovea; } \
    && install --directory --owner=1000 --group=0 --mode=0775 /home/fovea /models

# What is constrained is what is installed here: torch and vLLM stay as they are in the image.
WORKDIR /opt/fovea
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && uv pip install --system --no-cache --constraint constraints.txt --requirement requirements.txt \
        'ray[serve,haproxy]==2.60.0' 'pyarrow==26.0.1'

COPY README.md LICENSE ./
COPY gateway gateway
COPY deploy deploy
RUN uv pip install --system --no-cache --no-deps . \
    && python3 -c "from importlib.metadata import version; assert version('vllm').split('+')[0] == '0.32.0', version('vllm')"

ENV HOME=/home/fovea \
    USER=fovea \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/fovea
ENTRYPOINT []
CMD ["/bin/bash"]
