# The service on a CPU, as a user without rights. Run it with a read-only root; /data and /tmp are what it writes to:
#   docker build -t atldiff .
#   docker run --rm --read-only --tmpfs /tmp -v atldiff:/data -p 127.0.0.1:8000:8000 -e ATLDIFF_TOKENS atldiff

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/atldiff
ENV PATH=/opt/atldiff/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN torch="$(sed -n 's/^ *"\(torch==[^"]*\)",$/\1/p' pyproject.toml)" \
    && pip install "$torch" --index-url https://download.pytorch.org/whl/cpu \
    && pip install '.[serve]'

FROM python:3.11-slim-bookworm
# MediaPipe loads these two, though it draws nothing.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgles2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin atldiff \
    && install -d -o atldiff -g atldiff -m 0700 /data
COPY --from=build /opt/atldiff /opt/atldiff
ENV PATH=/opt/atldiff/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp XDG_CONFIG_HOME=/data/config
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["atldiff", "serve", "--host", "0.0.0.0", "--data", "/data/service", "--device", "cpu"]
CMD ["--workers", "1"]
