"""A run in a process of its own: `python -m tests.train.worker WORKDIR [options]`."""

import argparse
import sys

import jax


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    parser.add_argument("--config", default="same")
    parser.add_argument("--slow", type=float, default=0.0)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", arguments.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    import time

    from prior_jax.errors import PriorJaxError
    from prior_jax.sharding import distributed
    from prior_jax.train.preemption import EXIT_CODE, Preempted
    from tests.train import toy

    class Slow(toy.ToyData):
        def batch(self, step):
            time.sleep(arguments.slow)
            return super().batch(step)

    many = arguments.coordinator is not None
    try:
        distributed.start(
            distributed.DistributedConfig(
                mode="explicit" if many else "off",
                coordinator=arguments.coordinator,
                processes=arguments.processes,
                process=arguments.process,
                timeout_seconds=60,
            )
        )
        values = {"config": arguments.config, "code": distributed.code_fingerprint()}
        distributed.check_agreement(values, clock_tolerance_seconds=30.0)
        print("started", flush=True)
        toy.run(arguments.workdir, mesh=toy.mesh_of(jax.device_count()), data=Slow())
    except PriorJaxError as error:
        print(error, file=sys.stderr)
        return 2
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_CODE
    finally:
        distributed.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
