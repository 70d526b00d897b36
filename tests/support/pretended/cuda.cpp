// What torch asks a CUDA build and a CPU build has no answer to: which devices and streams there are. Every answer here
// is "the work is done", since whoever uses it computes on the CPU. PRETENDED_GPUS says how many devices there are.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstdlib>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

DeviceIndex count() {
  const char* given = std::getenv("PRETENDED_GPUS");
  return static_cast<DeviceIndex>(given ? std::atoi(given) : 1);
}

thread_local DeviceIndex current = 0;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  DeviceIndex deviceCount() const noexcept override { return count(); }

  Device getDevice() const override { return Device(DeviceType::CUDA, current); }
  void setDevice(Device to) const override { uncheckedSetDevice(to); }
  void uncheckedSetDevice(Device to) const noexcept override { current = to.has_index() ? to.index() : current; }
  Device exchangeDevice(Device to) const override {
    const Device before = getDevice();
    setDevice(to);
    return before;
  }

  // a device has one stream: its default one
  Stream getStream(Device of) const override { return Stream(Stream::DEFAULT, of); }
  Stream getDefaultStream(Device of) const override { return getStream(of); }
  Stream getNewStream(Device of, int) const override { return getStream(of); }
  Stream getStreamFromGlobalPool(Device of, bool) const override { return getStream(of); }
  Stream exchangeStream(Stream to) const override { return getStream(to.device()); }

  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

}  // namespace

// torch asks its registry for this very name
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return count(); }
  DeviceIndex deviceCount() const override { return count(); }
  DeviceIndex current_device() const override { return current; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void deviceSynchronize(DeviceIndex) const override {}
};

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, ::CUDAHooks);
}  // namespace at
