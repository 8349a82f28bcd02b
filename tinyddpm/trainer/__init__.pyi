from .recipes import RECIPES as RECIPES, Recipe as Recipe, UNetConfig as UNetConfig, get_recipe as get_recipe
from .run import train as train
from .trainer import Trainer as Trainer
