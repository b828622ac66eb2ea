// Which Python the program asks where only a Python package can do the work.
//
// Out:     a path.
// Thread:  any.
// Why:     the set-up chose an interpreter when it configured the build, and the program must not look for another one.
#pragma once

#include <string>

namespace stagecoach::app {

/// `named` where the user named one, else the interpreter this program was configured with.
std::string python_interpreter(const std::string& named);

}  // namespace stagecoach::app
