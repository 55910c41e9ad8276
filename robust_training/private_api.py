"""The private functions of other libraries that this package uses, each with its reason.

All other files use public functions only. If a release removes one of these names, the import of
this file fails with an error that names it.
"""

# timm.models.save_for_hf writes the weights as well: it refuses tensors in the channels_last memory
# format, and an error on a full disk does not name the file.
from timm.models._hub import save_config_for_hf

# It tells whether the current backward pass needs an input's gradient. needs_input_grad is true for
# every input that requires a gradient, so also for the weights if only the image's gradient is
# computed.
from torch._C import _will_engine_execute_node as is_gradient_wanted

# torch.export refuses a module that calls autograd.grad, so both passes are traced by make_fx, and
# only these make the number of images, and nothing else, a free size.
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode

# A repeated pass must run under the function modes of the first one; no public function lists them.
from torch.overrides import _get_current_function_mode_stack as active_function_modes
