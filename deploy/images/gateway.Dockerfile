# The gateway: HTTP and data, no engine. From the root of the repository:
#
#     docker build --file deploy/images/gateway.Dockerfile --tag fovea/gateway:VERSION .
#
# It writes to /tmp alone, so that the rest of its file system can be read-only, and runs as a user that has no name.

FROM python:3.12.13-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/fovea

# What pyproject.toml asks for, less what only the command line uses.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*(each for each in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if not each.startswith(('click>', 'psutil>', 'rich>'))), sep='\n')" > requirements.txt \
    && python -m pip --python /opt/fovea/bin/python install --no-cache-dir --constraint constraints.txt --requirement requirements.txt

# Compiled here, since nothing can be written where it runs.
COPY gateway gateway
RUN packages="$(/opt/fovea/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")" \
    && cp -r gateway "$packages" \
    && /opt/fovea/bin/python -m compileall -q --invalidation-mode unchecked-hash "$packages/gateway"


FROM python:3.12.13-slim-bookworm
COPY --from=build /opt/fovea /opt/fovea
ENV PATH=/opt/fovea/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
USER 1000:1000
EXPOSE 8000
ENTRYPOINT ["python", "-m", "gateway"]
