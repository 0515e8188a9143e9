#!/bin/bash
#SBATCH --job-name=my-study
#SBATCH --array=0-1
#SBATCH --ntasks=1 --gpus-per-task=1 --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --signal=B:TERM@120
# Each task of the array trains one row of a study, with all its seeds. Outside an array, the script makes the tables.
# Keep --array in step with the rows. Two minutes before the time limit, the runs save; the next sbatch resumes them.
study=docs/examples/my_study.yaml
rows=(plain mine)
out=runs/my-study  # on a file system that all machines share

if [ -z "$SLURM_ARRAY_TASK_ID" ]; then
    exec pocketvit study "$study" --allow-code --out "$out" --results "$out-rows"
fi
row=${rows[$SLURM_ARRAY_TASK_ID]:?"--array goes beyond the rows"}
exec pocketvit study "$study" --allow-code --only "$row" --out "$out-rows/$row"  # exec: the signal must reach it
