// Double DQN: its buffer and targets by hand, learning, determinism, resuming; policies and the
// states they visit.
#include "neurons/dqn.h"

#include <cmath>
#include <filesystem>

#include "datasets/cartpole.h"
#include "neurons/zoo.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

