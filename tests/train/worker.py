"""A run in a process of its own: `python -m tests.train.worker WORKDIR [options]`."""

import argparse
import os
import signal
import sys
import time

import jax

from prior_jax.errors import DataError


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    parser.add_argument("--config", default="same")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--heartbeat", type=int, default=100)
    parser.add_argument("--fail_at", type=int)
    parser.add_argument("--stall_at", type=int)
    parser.add_argument("--ask_in_validation", type=int)
    parser.add_argument("--ask_between", type=int)
    parser.add_argument("--hang_save", action="store_true")
    parser.add_argument("--slow_compile", type=float, default=0.0)
    parser.add_argument("--warn", type=float, default=300.0)
    parser.add_argument("--end", type=float)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", arguments.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    from launch.start import program
    from prior_jax.processes import distributed
    from prior_jax.processes.watchdog import WatchdogConfig
    from prior_jax.train import checkpoint
    from tests.train import toy

    class Data(toy.ToyData):
        def batch(self, step):
            time.sleep(arguments.slow)
            if step == arguments.fail_at:
                raise DataError("The page is torn.", "Give a radiograph.", where="record 7")
            if step == arguments.stall_at:
                time.sleep(1000)
            return super().batch(step)

    class Objective(toy.ToyObjective):
        def loss_terms(self, model, batch, **keywords):
            time.sleep(arguments.slow_compile)  # while it is traced
            return super().loss_terms(model, batch, **keywords)

    def validate(snapshot):
        if arguments.process == arguments.ask_in_validation:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)  # until all processes have heard of it
        return {"validation_loss": 1.0}

    if arguments.hang_save:
        checkpoint.survey = lambda arrays: time.sleep(1000)
    watchdog = WatchdogConfig(
        warn_seconds=arguments.warn, end_seconds=arguments.end, compile_seconds=60.0
    )

    def run():
        many = arguments.coordinator is not None
        distributed.start(
            distributed.DistributedConfig(
                mode="explicit" if many else "off",
                coordinator=arguments.coordinator,
                processes=arguments.processes,
                process=arguments.process,
                timeout_seconds=60,
                heartbeat_seconds=arguments.heartbeat,
            )
        )
        values = {"config": arguments.config, "code": distributed.code_fingerprint()}
        distributed.check_agreement(values, clock_tolerance_seconds=30.0)
        print("started", flush=True)
        validates = arguments.ask_in_validation is not None
        folders = [arguments.workdir]
        if arguments.ask_between is not None:
            folders.append(f"{arguments.workdir}/second")
        for folder in folders:
            if folder != arguments.workdir and arguments.process == arguments.ask_between:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)  # until all processes have heard of it
            toy.run(
                folder,
                mesh=toy.mesh_of(jax.device_count()),
                data=Data(),
                objective=Objective(),
                options=toy.options(watchdog=watchdog, validate_every=100 * validates),
                validate=validate if validates else None,
            )

    return program.guarded(run, sys.argv[:1])


if __name__ == "__main__":
    sys.exit(main())
