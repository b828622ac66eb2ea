// dlopen and dlsym. RTLD_LOCAL keeps torch's symbols out of the program's own libraries.
#include "compute/library.h"

#include <dlfcn.h>
#include <unistd.h>

namespace stagecoach::compute {

base::Result<Library*> open_library(const std::string& path) {
  if (access(path.c_str(), R_OK) != 0) {
    return base::Error{base::ErrorCode::not_found, "there is no compute library at " + path + ": build it, or name its path"};
  }
  // A name without a slash would be looked for in the system's folders instead.
  void* handle = dlopen(path.find('/') == std::string::npos ? ("./" + path).c_str() : path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    return base::Error{base::ErrorCode::io_error,
                       "the compute library " + path + " cannot be loaded: " + (reason ? reason : "no reason given")};
  }
  using OpenFunction = Library* (*)();
  const auto open = reinterpret_cast<OpenFunction>(dlsym(handle, kOpenSymbol));
  if (open == nullptr) {
    dlclose(handle);
    return base::Error{base::ErrorCode::mismatch, path + " is not a compute library of Stagecoach: it has no " + kOpenSymbol};
  }
  return open();
}

}  // namespace stagecoach::compute
