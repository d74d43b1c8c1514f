#!/usr/bin/env bash
#SBATCH --job-name=drillcore
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=12:00:00
#
# A job on as many machines as Slurm gives. Ray is started on each of them by its own `ray symmetric-run`, drillcore runs
# on the first, and Ray is stopped at the end. Job file, store and model directories lie on a shared file system.
#
#   sbatch [options of sbatch, which win over those above] jobs/slurm-ray.sh JOB [options of drillcore run]
#
# Where time ran out, submit it again: what was committed is kept. VENV: the environment that drillcore is installed in.
set -euo pipefail

job=${1:?usage: sbatch jobs/slurm-ray.sh JOB [options of drillcore run]}
shift
if [ -n "${VENV:-}" ]; then
  # shellcheck source=/dev/null
  source "$VENV/bin/activate"
fi

read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Jobs that share a machine have ports of their own.
address="$first:$((20000 + SLURM_JOB_ID % 20000))"

# Others on the cluster's network have no part in it.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# Ray counts what the machine has; Slurm may have given less of it.
srun ray symmetric-run --address "$address" --min-nodes "$SLURM_NNODES" --disable-usage-stats \
  --num-cpus "${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
  -- drillcore run "$job" --set run.executor=ray --set "run.address=$address" "$@"
