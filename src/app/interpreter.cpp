#include "app/interpreter.h"

namespace stagecoach::app {

std::string python_interpreter(const std::string& named) { return named.empty() ? STAGECOACH_PYTHON : named; }

}  // namespace stagecoach::app
