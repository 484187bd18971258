#!/usr/bin/env bash
# slurm.sh FOLDER COMMAND...: run COMMAND beside a Slurm of one node with accounting, all of it in FOLDER.
# In namespaces of its own: no network but lo, and every process ends with this one. Exit code 77: it did not start.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
  exec unshare --net --pid --fork --mount-proc --kill-child -- "$0" --inside "$@"
fi
trap 'exit 77' ERR
shift
folder=$(realpath "$1") host=$(hostname -s) from=$PWD
shift
cd "$folder"
mkdir -p run state spool mysql log
ip link set lo up
ip address add 192.0.2.1/32 dev lo  # of no network: without an address but 127.0.0.1, getaddrinfo answers nothing
await() { for _ in $(seq 150); do "$@" >log/await 2>&1 && return; sleep 0.2; done; echo "no answer: $*" >&2; tail -n 20 log/* >&2; exit 77; }

dd if=/dev/urandom of=munge.key bs=1 count=1024 status=none && chmod 400 munge.key
munged --force --key-file=munge.key --socket="$folder/run/munge" --pid-file=run/munged.pid --log-file=log/munged --seed-file=run/seed
if [ ! -d mysql/mysql ]; then mariadb-install-db --no-defaults --user=root --datadir="$folder/mysql" --skip-test-db >log/install-db 2>&1; fi
mariadbd --no-defaults --user=root --datadir="$folder/mysql" --socket="$folder/run/mysql" --pid-file="$folder/run/mysql.pid" \
  --port=3306 --bind-address=127.0.0.1 --skip-grant-tables --skip-networking=0 --innodb-buffer-pool-size=64M >log/mariadb 2>&1 &
await mariadb-admin --no-defaults --socket="$folder/run/mysql" ping
cat >slurmdbd.conf <<EOF
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge
DbdHost=localhost
SlurmUser=root
LogFile=$folder/log/slurmdbd
PidFile=$folder/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=3306
StorageUser=root
StoragePass=none
EOF
chmod 600 slurmdbd.conf
cat >slurm.conf <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
SlurmdTimeout=20
MinJobAge=300
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass=$folder/run/munge
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES PriorityTier=1 State=UP
PartitionName=urgent Nodes=$host PriorityTier=10 State=UP
EOF
export SLURM_CONF="$folder/slurm.conf"
slurmdbd -D >log/slurmdbd.err 2>&1 &
await bash -c 'echo >/dev/tcp/127.0.0.1/6819'
await sacctmgr -i add cluster test
slurmctld -D >/dev/null 2>&1 &
await scontrol ping
slurmd -D >/dev/null 2>&1 &
await bash -c '[ "$(sinfo -h -p main -o %t)" = idle ]'
cd "$from"
exec "$@"
