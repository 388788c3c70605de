"""The command line in a process with several CPUs: `CPUS=N python -m ... train RECIPE ...`."""

from keras_tokenlearner.cli import main
from tests.training.distribution.launch import make_cpus

if __name__ == "__main__":
    make_cpus()
    main()
