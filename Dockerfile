# ChainForge with CUDA: docker build -t chainforge . && docker run --gpus all -it chainforge
# It has not been built yet: there was no Docker where it was written.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04

# Python 3.12 is this Ubuntu's own. bubblewrap is the sandbox of the reward `code`. Triton, by which vLLM and torchao
# compile their kernels, builds a small module in C when it is first used: gcc, libc6-dev and python3-dev are for that.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
       bubblewrap ca-certificates gcc git libc6-dev make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The packages, torch with its own CUDA libraries among them: a layer that only a new lock makes anew.
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH DVC_NO_ANALYTICS=1 PYTHONHASHSEED=0
COPY requirements.lock /tmp/
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock \
    && chown -R ubuntu:ubuntu /opt/venv

# The project, for a user who is not root.
USER ubuntu
WORKDIR /home/ubuntu/chainforge
COPY --chown=ubuntu:ubuntu . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . \
    && git init --quiet \
    && git add --all \
    && git -c user.name=image -c user.email=image@localhost commit --quiet --message "The image"

CMD ["bash"]
